import { type Mib2IpGroup, mib2IpGroup } from '../wire/sflow/counters/host.ts'
import type { CounterReader } from './reader.ts'
import type { Snmp } from './snmp.ts'

/** mib2_ip_group (0:2007) from the `Ip` lines of /proc/net/snmp. */
export function mib2IpReader(snmp: () => Promise<Snmp>): CounterReader<typeof mib2IpGroup> {
  return { record: mib2IpGroup, read: async () => mib2Ip(await snmp()) }
}

function mib2Ip(snmp: Snmp): Mib2IpGroup {
  const { counter, gauge } = snmp('Ip')
  return {
    ipForwarding: gauge('Forwarding', 0),
    ipDefaultTTL: gauge('DefaultTTL', 0),
    ipInReceives: counter('InReceives'),
    ipInHdrErrors: counter('InHdrErrors'),
    ipInAddrErrors: counter('InAddrErrors'),
    ipForwDatagrams: counter('ForwDatagrams'),
    ipInUnknownProtos: counter('InUnknownProtos'),
    ipInDiscards: counter('InDiscards'),
    ipInDelivers: counter('InDelivers'),
    ipOutRequests: counter('OutRequests'),
    ipOutDiscards: counter('OutDiscards'),
    ipOutNoRoutes: counter('OutNoRoutes'),
    ipReasmTimeout: gauge('ReasmTimeout', 0),
    ipReasmReqds: counter('ReasmReqds'),
    ipReasmOKs: counter('ReasmOKs'),
    ipReasmFails: counter('ReasmFails'),
    ipFragOKs: counter('FragOKs'),
    ipFragFails: counter('FragFails'),
    ipFragCreates: counter('FragCreates'),
  }
}

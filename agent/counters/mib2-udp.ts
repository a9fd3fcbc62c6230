import { type Mib2UdpGroup, mib2UdpGroup } from '../wire/sflow/counters/host.ts'
import type { CounterReader } from './reader.ts'
import type { Snmp } from './snmp.ts'

/** mib2_udp_group (0:2010) from the `Udp` lines of /proc/net/snmp. */
export function mib2UdpReader(snmp: () => Promise<Snmp>): CounterReader<typeof mib2UdpGroup> {
  return { record: mib2UdpGroup, read: async () => mib2Udp(await snmp()) }
}

function mib2Udp(snmp: Snmp): Mib2UdpGroup {
  const { counter } = snmp('Udp')
  return {
    udpInDatagrams: counter('InDatagrams'),
    udpNoPorts: counter('NoPorts'),
    udpInErrors: counter('InErrors'),
    udpOutDatagrams: counter('OutDatagrams'),
    udpRcvbufErrors: counter('RcvbufErrors'),
    udpSndbufErrors: counter('SndbufErrors'),
    udpInCsumErrors: counter('InCsumErrors'),
  }
}

import { type Mib2IcmpGroup, mib2IcmpGroup } from '../wire/sflow/counters/host.ts'
import type { CounterReader } from './reader.ts'
import type { Snmp } from './snmp.ts'

/** mib2_icmp_group (0:2008) from the `Icmp` lines of /proc/net/snmp. */
export function mib2IcmpReader(snmp: () => Promise<Snmp>): CounterReader<typeof mib2IcmpGroup> {
  return { record: mib2IcmpGroup, read: async () => mib2Icmp(await snmp()) }
}

/** The kernel writes ParmProbs where the MIB has ParamProbs. */
function mib2Icmp(snmp: Snmp): Mib2IcmpGroup {
  const { counter } = snmp('Icmp')
  return {
    icmpInMsgs: counter('InMsgs'),
    icmpInErrors: counter('InErrors'),
    icmpInDestUnreachs: counter('InDestUnreachs'),
    icmpInTimeExcds: counter('InTimeExcds'),
    icmpInParamProbs: counter('InParmProbs'),
    icmpInSrcQuenchs: counter('InSrcQuenchs'),
    icmpInRedirects: counter('InRedirects'),
    icmpInEchos: counter('InEchos'),
    icmpInEchoReps: counter('InEchoReps'),
    icmpInTimestamps: counter('InTimestamps'),
    icmpInAddrMasks: counter('InAddrMasks'),
    icmpInAddrMaskReps: counter('InAddrMaskReps'),
    icmpOutMsgs: counter('OutMsgs'),
    icmpOutErrors: counter('OutErrors'),
    icmpOutDestUnreachs: counter('OutDestUnreachs'),
    icmpOutTimeExcds: counter('OutTimeExcds'),
    icmpOutParamProbs: counter('OutParmProbs'),
    icmpOutSrcQuenchs: counter('OutSrcQuenchs'),
    icmpOutRedirects: counter('OutRedirects'),
    icmpOutEchos: counter('OutEchos'),
    icmpOutEchoReps: counter('OutEchoReps'),
    icmpOutTimestamps: counter('OutTimestamps'),
    icmpOutTimestampReps: counter('OutTimestampReps'),
    icmpOutAddrMasks: counter('OutAddrMasks'),
    icmpOutAddrMaskReps: counter('OutAddrMaskReps'),
  }
}

import { type Mib2TcpGroup, mib2TcpGroup } from '../wire/sflow/counters/host.ts'
import { UNKNOWN32 } from '../wire/struct.ts'
import type { CounterReader } from './reader.ts'
import type { Snmp } from './snmp.ts'

/** mib2_tcp_group (0:2009) from the `Tcp` lines of /proc/net/snmp. */
export function mib2TcpReader(snmp: () => Promise<Snmp>): CounterReader<typeof mib2TcpGroup> {
  return { record: mib2TcpGroup, read: async () => mib2Tcp(await snmp()) }
}

/** The kernel says -1 for connections without a limit, and so does the MIB: all ones. */
function mib2Tcp(snmp: Snmp): Mib2TcpGroup {
  const { counter, gauge } = snmp('Tcp')
  return {
    tcpRtoAlgorithm: gauge('RtoAlgorithm', 0),
    tcpRtoMin: gauge('RtoMin', 0),
    tcpRtoMax: gauge('RtoMax', 0),
    tcpMaxConn: gauge('MaxConn', UNKNOWN32),
    tcpActiveOpens: counter('ActiveOpens'),
    tcpPassiveOpens: counter('PassiveOpens'),
    tcpAttemptFails: counter('AttemptFails'),
    tcpEstabResets: counter('EstabResets'),
    tcpCurrEstab: gauge('CurrEstab', 0),
    tcpInSegs: counter('InSegs'),
    tcpOutSegs: counter('OutSegs'),
    tcpRetransSegs: counter('RetransSegs'),
    tcpInErrs: counter('InErrs'),
    tcpOutRsts: counter('OutRsts'),
    tcpInCsumErrors: counter('InCsumErrors'),
  }
}

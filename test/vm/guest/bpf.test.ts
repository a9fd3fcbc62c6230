/** Host sampling by BPF: clsact on Linux 6.1, TCX on 6.12. The tests are those of any machine. */
import { modprobe } from '../../support/guest.ts'

modprobe('veth', 'bridge', 'macvlan', 'sch_ingress', 'cls_bpf', 'sch_netem', 'sch_tbf', 'sch_fq_codel')
await import('../../sources/bpf-samples.test.ts')
await import('../../sources/bpf-transit.test.ts')

/** Following packets, with the qdiscs that Debian's kernels have. The tests are those of any machine. */
import { modprobe } from '../../support/guest.ts'

modprobe('veth', 'bridge', 'macvlan', '8021q', 'vxlan', 'bonding')
modprobe('sch_ingress', 'cls_bpf', 'sch_netem', 'sch_tbf', 'sch_htb', 'sch_fq_codel')
await import('../../sources/bpf-transit.test.ts')

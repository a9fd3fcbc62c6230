/** Host sampling by BPF: clsact on Linux 6.1, TCX on 6.12. The tests are those of any machine. */
import { modprobe } from '../../support/guest.ts'

modprobe('veth', 'sch_ingress', 'cls_bpf')
await import('../../sources/bpf-samples.test.ts')

/** Attaches a program that does nothing to an interface, so that what measuring itself costs can be told apart. */
import { execFileSync } from 'node:child_process'
import { BpfObject } from '../../agent/kernel/bpf-object.ts'

const SOURCE = `
__attribute__((section("tcx/ingress"), used)) int empty(void *packet) { return -1; }
__attribute__((section("license"), used)) char licence[] = "GPL";
`
const options = ['-target', 'bpf', '-O2', '-g', '-x', 'c', '-c', '-o', '-', '-']
const bytes = execFileSync('clang-14', options, { input: SOURCE })
const object = await BpfObject.load({ name: 'empty', bytes })
await object.attachTcx('empty', Number(process.argv[2]))
setInterval(() => {}, 1000)

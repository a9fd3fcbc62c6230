/**
 * Attaches a program to the ingress of an interface by TCX, before those that are there: `node tc-program.ts IFINDEX
 * VERDICT`. It does nothing but give its verdict (-1: whatever the next one says) until the process is ended.
 */
import { execFileSync } from 'node:child_process'
import { BpfObject } from '../../agent/kernel/bpf-object.ts'

const SOURCE = `
__attribute__((section("tcx/ingress"), used)) int verdict(void *packet) { return ${Number(process.argv[3])}; }
__attribute__((section("license"), used)) char licence[] = "GPL";
`
const options = ['-target', 'bpf', '-O2', '-g', '-x', 'c', '-c', '-o', '-', '-']
const bytes = execFileSync('clang-14', options, { input: SOURCE })
const object = await BpfObject.load({ name: 'verdict', bytes })
await object.attachTcx('verdict', Number(process.argv[2]))
console.error('attached')
setInterval(() => {}, 1000)

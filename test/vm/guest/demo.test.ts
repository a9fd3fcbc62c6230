/** The demo: where the kernel samples, as on a switch, and on newer kernels where BPF follows packets. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkRouter, runDemo } from '../../support/demo.ts'
import { kernelAtLeast, modprobe } from '../../support/guest.ts'

modprobe('veth', 'sch_tbf')

if (kernelAtLeast(6, 12)) {
  test('the demo follows packets by BPF', async () => {
    // Half of it goes by until an emulated processor has read the names of the functions that drop packets.
    const { output, messages } = await runDemo('--seconds', '12')
    assert.match(messages, /packets are sampled by BPF/)
    checkRouter(output, 'some')
  })
} else {
  test('the demo takes its samples from tc and PSAMPLE', async () => {
    const { output, messages } = await runDemo('--seconds', '4', '--by', 'psample')
    assert.match(messages, /the kernel samples \(tc matchall and PSAMPLE\)/)
    assert.match(output, /0 problems found by the decoder/)
    // Sampled where it comes in: where it leaves is not known there.
    assert.match(output, /lan0 +\? +UDP +192\.0\.2\.2 +198\.51\.100\.2:5002/)
    assert.match(output, /wan0 +\? +TCP +198\.51\.100\.2:5201 +192\.0\.2\.2/)
  })
}

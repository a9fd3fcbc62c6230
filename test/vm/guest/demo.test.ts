/** The demo where the kernel samples. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runDemo } from '../../support/demo.ts'
import { modprobe } from '../../support/guest.ts'

test('the demo takes its samples from tc and PSAMPLE, in both directions', async () => {
  modprobe('veth')
  const { output, messages } = await runDemo(4)
  assert.match(messages, /the kernel samples \(tc matchall and PSAMPLE\)/)
  assert.match(output, /0 problems found by the decoder/)
  // Sampled at the output: the packet leaves by eth0, and nothing is known of where it came from.
  assert.match(output, /eth0 +\? +UDP +192\.0\.2\.2 +192\.0\.2\.1:5002/)
  assert.match(output, /\? +eth0 +TCP +192\.0\.2\.1:5201 +192\.0\.2\.2/)
})

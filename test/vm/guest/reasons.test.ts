/** The drop reasons of a real kernel: each has a row in the tables. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { kernelReasons } from '../../../agent/drops/kernel-names.ts'
import { kernelAtLeast, modprobe } from '../../support/guest.ts'

test('every drop reason of this kernel and of its modules is known', t => {
  modprobe('openvswitch', 'mac80211')
  const reasons = kernelReasons()
  const counts = Object.groupBy(reasons, ({ from }) => from)
  const told = Object.entries(counts).map(([from, list]) => `${list!.length} of ${from}`)
  const unmapped = reasons.filter(({ isMapped }) => !isMapped).map(({ name }) => name)
  t.diagnostic(`reasons: ${told.join(', ')}; not mapped: ${unmapped.join(', ') || 'none'}`)
  assert.deepEqual(unmapped, [])
  assert.ok(reasons.length >= 66, `${reasons.length} reasons`)
  if (kernelAtLeast(6, 6)) {
    assert.ok(reasons.some(({ name }) => name === 'OVS_DROP_LAST_ACTION'))
    assert.ok(reasons.some(({ name }) => name.startsWith('RX_DROP_')))
  }
})

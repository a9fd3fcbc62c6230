/**
 * Records PSAMPLE messages as a real kernel sends them, into /run/weir-vm/psample.hex of the guest:
 *
 *   node test/vm/run.ts --keep test/vm/record/psample.test.ts
 *
 * One message a line, in hexadecimal, under a heading that tells what made it.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { resolveFamily } from '../../../agent/kernel/genl.ts'
import { NETLINK_GENERIC, NetlinkSocket } from '../../../agent/kernel/netlink-socket.ts'
import { modprobe, neighbour, netdevsim, ping, sampler, until } from '../../support/guest.ts'

const PER_SOURCE = 8

test('record PSAMPLE messages', async t => {
  modprobe('psample', 'act_sample', 'cls_matchall', 'sch_ingress')
  const control = NetlinkSocket.open(NETLINK_GENERIC)
  const family = (await resolveFamily(control, 'psample'))!
  control.close()
  let messages: string[] = []
  const socket = NetlinkSocket.open(NETLINK_GENERIC, {
    onDatagram: (view, _words, start, end) =>
      messages.push(Buffer.from(view.buffer, start, end - start).toString('hex')),
  })
  t.after(() => socket.close())
  socket.join(family.groups.get('packets')!)
  const recorded: string[] = []
  const record = async (heading: string, make: () => void) => {
    messages = []
    make()
    await until(heading, () => messages.length >= PER_SOURCE)
    recorded.push(`# ${heading}`, ...messages.slice(0, PER_SOURCE))
  }

  const device = netdevsim(t, 10, 2)
  await record('netdevsim: queue, depth and latency', () =>
    device.startSamples({
      group_num: 1,
      rate: 400,
      trunc_size: 128,
      out_tc: 7,
      out_tc_occ_max: 2 ** 24,
      latency_max: 2 ** 27,
    }),
  )
  device.stopSamples()
  neighbour(t, 'vr')
  sampler('vr', 'ingress', { rate: 1, group: 1 })
  await record('tc sampler: ingress', () => ping(20))
  sampler('vr', 'egress', { rate: 1, group: 2 })
  await record('tc sampler: ingress and egress', () => ping(20))
  writeFileSync('/run/weir-vm/psample.hex', `${recorded.join('\n')}\n`)
  assert.equal(recorded.length, 3 * (PER_SOURCE + 1))
})

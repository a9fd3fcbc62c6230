import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { describe, test } from 'node:test'
import { NetlinkError } from '../../agent/kernel/netlink-socket.ts'
import {
  DropMonitorBusyError,
  DropMonitorControl,
  type DropMonitorWishes,
} from '../../agent/sources/drop-monitor-control.ts'
import type { DropFeed, DropMonitorConfig } from '../../agent/wire/netlink/drop-monitor.ts'
import type { Message } from '../../agent/wire/netlink/message.ts'
import { dropMessage } from '../support/drop-alert.ts'
import { u32 } from '../support/psample-message.ts'

const FAMILY = 33
const WISHES = { software: true, hardware: true, force: true, truncateBytes: 128, queueLength: 1000 }
const FRESH = { packets: false, truncateBytes: 0, queueLength: 1000 }
const WISHED = { packets: true, truncateBytes: 128, queueLength: 1000 }

/** The monitor as net/core/drop_monitor.c keeps it: one configuration, two feeds, no owner. */
class Kernel {
  config: DropMonitorConfig = FRESH
  readonly on = new Set<DropFeed>()
  hasHardware = true
  readonly requests: string[] = []

  readonly send = async (message: Uint8Array, operation: string): Promise<Message | undefined> => {
    const view = new DataView(message.buffer, message.byteOffset, message.length)
    const refuse = (code: 'EBUSY' | 'EAGAIN' | 'EOPNOTSUPP') => {
      throw new NetlinkError(constants.errno[code], operation)
    }
    const command = ['', '', 'config', 'start', 'stop', '', 'get'][view.getUint8(16)]!
    if (command === 'get') {
      const { packets, truncateBytes, queueLength } = this.config
      const bytes = dropMessage(
        [
          [1, Uint8Array.of(packets ? 1 : 0)],
          [9, u32(truncateBytes)],
          [11, u32(queueLength)],
        ],
        7,
      )
      return { type: FAMILY, flags: 0, view: new DataView(bytes.buffer) }
    }
    if (command === 'config') {
      if (this.on.size > 0) refuse('EBUSY')
      this.requests.push(command)
      const [packets, truncateBytes, queueLength] = [
        view.getUint8(24),
        view.getUint32(32, true),
        view.getUint32(40, true),
      ]
      this.config = { packets: packets === 1, truncateBytes, queueLength }
      return undefined
    }
    const feed: DropFeed = view.getUint16(22, true) === 20 ? 'software' : 'hardware'
    if (command === 'start') {
      if (feed === 'hardware' && !this.hasHardware) refuse('EOPNOTSUPP')
      if (this.on.has(feed)) refuse('EAGAIN')
      this.on.add(feed)
    } else this.on.delete(feed)
    this.requests.push(`${command} ${feed}`)
    return undefined
  }

  get feeds(): DropFeed[] {
    return [...this.on].sort()
  }
}

function setUp(wishes: Partial<DropMonitorWishes> = {}) {
  const kernel = new Kernel()
  const control = new DropMonitorControl({ ...WISHES, ...wishes })
  return {
    kernel,
    bringUp: () => control.bringUp(FAMILY, kernel.send),
    restore: () => control.restore(FAMILY, kernel.send),
  }
}

describe('the switch of the drop monitor', () => {
  test('off: configured, verified and started; put back at the end', async () => {
    const { kernel, bringUp, restore } = setUp()
    assert.deepEqual(await bringUp(), { started: ['software', 'hardware'], missing: [], config: WISHED })
    assert.deepEqual(kernel.requests, ['config', 'start software', 'start hardware'])
    await restore()
    assert.deepEqual(kernel.config, FRESH)
    assert.deepEqual(kernel.feeds, [])
  })

  test('only what is wished for is started', async () => {
    const { kernel, bringUp } = setUp({ software: false })
    await bringUp()
    assert.deepEqual(kernel.feeds, ['hardware'])
  })

  test('a kernel without hardware drops', async () => {
    const { kernel, bringUp } = setUp()
    kernel.hasHardware = false
    assert.deepEqual((await bringUp()).missing, ['hardware'])
    assert.deepEqual(kernel.feeds, ['software'])
  })

  test('others have one feed on: it is not stopped at the end, and the configuration stays', async () => {
    const { kernel, bringUp, restore } = setUp()
    kernel.config = { ...WISHED, truncateBytes: 0 }
    kernel.on.add('software')
    const { started, config } = await bringUp()
    assert.deepEqual(started, ['hardware'])
    assert.deepEqual(config, kernel.config)
    await restore()
    assert.deepEqual(kernel.feeds, ['software'])
    assert.equal(kernel.config.truncateBytes, 0)
  })

  for (const [name, config] of [
    ['summaries', FRESH],
    ['packets, but too short', { ...WISHED, truncateBytes: 16 }],
  ] as const) {
    test(`others have it on for ${name}: left alone without force`, async () => {
      const { kernel, bringUp, restore } = setUp({ force: false })
      kernel.config = config
      kernel.on.add('software')
      await assert.rejects(bringUp(), DropMonitorBusyError)
      await restore()
      assert.deepEqual(kernel.requests, [])
      assert.deepEqual(kernel.feeds, ['software'])
    })

    test(`others have it on for ${name}: taken with force, given back at the end`, async () => {
      const { kernel, bringUp, restore } = setUp({ hardware: false })
      kernel.config = config
      kernel.on.add('software').add('hardware')
      assert.deepEqual((await bringUp()).config, WISHED)
      assert.deepEqual(kernel.feeds, ['software'])
      await restore()
      assert.deepEqual(kernel.config, config)
      assert.deepEqual(kernel.feeds, ['hardware', 'software'])
    })
  }

  test('stopped by somebody: the next look starts it again', async () => {
    const { kernel, bringUp, restore } = setUp()
    await bringUp()
    kernel.on.clear()
    assert.deepEqual((await bringUp()).started, ['software', 'hardware'])
    assert.deepEqual((await bringUp()).started, [])
    await restore()
    assert.deepEqual(kernel.feeds, [])
    assert.deepEqual(kernel.config, FRESH)
  })

  test('two that insist do not take it from each other for ever', async () => {
    const { kernel, bringUp } = setUp()
    const others = () => {
      kernel.config = FRESH
      kernel.on.clear()
      kernel.on.add('software')
    }
    for (let i = 0; i < 5; i++) {
      others()
      await bringUp()
    }
    others()
    await assert.rejects(bringUp(), /again and again/)
  })

  test('somebody has it on when the end comes: the configuration stays theirs', async () => {
    const { kernel, bringUp, restore } = setUp({ hardware: false })
    await bringUp()
    kernel.on.add('hardware')
    await restore()
    assert.deepEqual(kernel.feeds, ['hardware'])
    assert.deepEqual(kernel.config, WISHED)
  })

  test('a refusal of another kind is passed on', async () => {
    const denied = new NetlinkError(constants.errno.EPERM, 'configure the drop monitor')
    const control = new DropMonitorControl(WISHES)
    await assert.rejects(
      control.bringUp(FAMILY, () => Promise.reject(denied)),
      { code: 'EPERM' },
    )
  })
})

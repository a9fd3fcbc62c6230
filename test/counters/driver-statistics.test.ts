import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, test } from 'node:test'
import { DriverStatistics } from '../../agent/counters/driver-statistics.ts'
import { KernelSocket, SystemError } from '../../agent/kernel/native.ts'
import {
  countersRequest,
  driverInfoRequest,
  namesRequest,
  placesOf,
  readCounters,
  readNames,
  readStatisticsCount,
  SIOCETHTOOL,
} from '../../agent/wire/ethtool-strings.ts'
import { ipBatch, makeNamespace } from '../kernel/namespaces.ts'

const ENODEV = 19
const EOPNOTSUPP = 95
const EFAULT = 14
const EIO = 5

/** A driver with these statistics, which change between questions. */
function driver(...states: [name: string, value: bigint][][]) {
  let asked = 0
  const ask = async (_device: string, bytes: Uint8Array) => {
    const state = states[Math.min(asked++, states.length - 1)]!
    const view = new DataView(bytes.buffer)
    const command = view.getUint32(0, true)
    if (command === 3) view.setUint32(180, state.length, true)
    else if (command === 0x1b) {
      // As the kernel does: what does not fit into the caller's memory is a fault.
      if (bytes.length < 12 + 32 * state.length) throw new SystemError(EFAULT, 'names')
      view.setUint32(8, state.length, true)
      for (const [i, [name]] of state.entries()) bytes.set(new TextEncoder().encode(name), 12 + 32 * i)
    } else if (command === 0x1d) {
      if (bytes.length < 8 + 8 * state.length) throw new SystemError(EFAULT, 'statistics')
      view.setUint32(4, state.length, true)
      for (const [i, [, value]] of state.entries()) view.setBigUint64(8 + 8 * i, value, true)
    } else throw new Error(`command ${command}`)
  }
  return { statistics: new DriverStatistics(ask, () => {}), asked: () => asked }
}

/** What drivers call them, from what `ethtool -S` shows with each. */
const DRIVERS: [
  driver: string,
  names: string[],
  mac: Record<string, string>,
  phy?: Record<string, string>,
][] = [
  [
    'igb, e1000e',
    [
      ...['rx_packets', 'rx_broadcast', 'tx_broadcast', 'rx_multicast', 'tx_multicast', 'multicast'],
      ...['rx_crc_errors', 'tx_aborted_errors', 'tx_carrier_errors', 'tx_abort_late_coll', 'tx_deferred_ok'],
      ...['tx_single_coll_ok', 'tx_multi_coll_ok', 'rx_long_length_errors', 'rx_align_errors'],
    ],
    {
      broadcastFramesReceivedOk: 'rx_broadcast',
      broadcastFramesTransmittedOk: 'tx_broadcast',
      multicastFramesReceivedOk: 'rx_multicast',
      multicastFramesTransmittedOk: 'tx_multicast',
      frameCheckSequenceErrors: 'rx_crc_errors',
      carrierSenseErrors: 'tx_carrier_errors',
      lateCollisions: 'tx_abort_late_coll',
      framesWithDeferredTransmissions: 'tx_deferred_ok',
      singleCollisionFrames: 'tx_single_coll_ok',
      multipleCollisionFrames: 'tx_multi_coll_ok',
      frameTooLongErrors: 'rx_long_length_errors',
      alignmentErrors: 'rx_align_errors',
    },
  ],
  [
    'ixgbe',
    ['rx_packets', 'multicast', 'broadcast', 'rx_crc_errors', 'rx_long_length_errors'],
    {
      broadcastFramesReceivedOk: 'broadcast',
      frameCheckSequenceErrors: 'rx_crc_errors',
      frameTooLongErrors: 'rx_long_length_errors',
    },
  ],
  [
    'i40e',
    ['rx_unicast', 'port.rx_multicast', 'port.tx_multicast', 'port.rx_broadcast', 'port.rx_crc_errors'],
    {
      multicastFramesReceivedOk: 'port.rx_multicast',
      multicastFramesTransmittedOk: 'port.tx_multicast',
      broadcastFramesReceivedOk: 'port.rx_broadcast',
      frameCheckSequenceErrors: 'port.rx_crc_errors',
    },
  ],
  [
    'ice',
    ['rx_unicast', 'rx_multicast', 'rx_multicast.nic', 'tx_broadcast.nic', 'rx_crc_errors.nic'],
    {
      multicastFramesReceivedOk: 'rx_multicast',
      broadcastFramesTransmittedOk: 'tx_broadcast.nic',
      frameCheckSequenceErrors: 'rx_crc_errors.nic',
    },
  ],
  [
    'mlx5',
    ['rx_vport_multicast_packets', 'rx_multicast_phy', 'rx_crc_errors_phy', 'rx_symbol_err_phy'],
    {
      multicastFramesReceivedOk: 'rx_vport_multicast_packets',
      frameCheckSequenceErrors: 'rx_crc_errors_phy',
    },
    { symbolErrorsDuringCarrier: 'rx_symbol_err_phy' },
  ],
  [
    'bnxt',
    ['[0]: rx_ucast_packets', 'rx_mcast_frames', 'tx_bcast_frames', 'rx_fcs_err_frames', 'rx_ovrsz_frames'],
    {
      multicastFramesReceivedOk: 'rx_mcast_frames',
      broadcastFramesTransmittedOk: 'tx_bcast_frames',
      frameCheckSequenceErrors: 'rx_fcs_err_frames',
      frameTooLongErrors: 'rx_ovrsz_frames',
    },
  ],
  [
    'tg3',
    ['rx_mcast_packets', 'rx_fcs_errors', 'tx_mult_collisions', 'tx_carrier_sense_errors'],
    {
      multicastFramesReceivedOk: 'rx_mcast_packets',
      frameCheckSequenceErrors: 'rx_fcs_errors',
      multipleCollisionFrames: 'tx_mult_collisions',
      carrierSenseErrors: 'tx_carrier_sense_errors',
    },
  ],
  [
    'mlxsw',
    [
      ...['a_frames_transmitted_ok', 'a_frame_check_sequence_errors', 'a_multicast_frames_xmitted_ok'],
      'a_symbol_error_during_carrier',
    ],
    {
      frameCheckSequenceErrors: 'a_frame_check_sequence_errors',
      multicastFramesTransmittedOk: 'a_multicast_frames_xmitted_ok',
    },
    { symbolErrorsDuringCarrier: 'a_symbol_error_during_carrier' },
  ],
  ['virtio_net', ['rx0_packets', 'rx0_bytes', 'rx0_drops', 'tx0_packets', 'tx0_kicks'], {}],
]

describe("statistics by a driver's own names", () => {
  for (const [name, names, mac, phy = {}] of DRIVERS) {
    test(name, () => {
      const named = (places: ReadonlyMap<string, number>) =>
        Object.fromEntries([...places].map(([statistic, index]) => [statistic, names[index]]))
      const places = placesOf(names)
      assert.deepEqual(named(places.mac), mac)
      assert.deepEqual(named(places.phy), phy)
    })
  }

  test('names are read once, counters each time', async () => {
    const { statistics, asked } = driver([
      ['rx_octets', 5n],
      ['rx_fcs_errors', 0xffff_ffff_ffff_fff0n],
    ])
    for (let reading = 0; reading < 2; reading++) {
      const stats = await statistics.read(7, 'eth0')
      assert.deepEqual(stats, {
        ifIndex: 7,
        mac: { frameCheckSequenceErrors: 0xffff_ffff_ffff_fff0n },
        phy: {},
      })
    }
    assert.equal(asked(), 4)
    statistics.forget(7)
    await statistics.read(7, 'eth0')
    assert.equal(asked(), 7)
  })

  const before: [string, bigint][] = [['rx_fcs_errors', 1n]]
  const more: [string, bigint][] = [
    ['queue_9_packets', 2n],
    ['rx_fcs_errors', 3n],
  ]
  for (const [name, states] of [
    ['more', [before, before, before, more]],
    ['fewer', [more, more, more, before]],
  ] as [string, [string, bigint][][]][]) {
    test(`${name} statistics than before: the names are read again`, async () => {
      const { statistics } = driver(...states)
      const first = states[0]!.find(([name]) => name === 'rx_fcs_errors')![1]
      const last = states.at(-1)!.find(([name]) => name === 'rx_fcs_errors')![1]
      assert.equal((await statistics.read(7, 'eth0'))!.mac.frameCheckSequenceErrors, first)
      const again = (await statistics.read(7, 'eth0')) ?? (await statistics.read(7, 'eth0'))
      assert.equal(again!.mac.frameCheckSequenceErrors, last)
    })
  }

  test('a driver with a count of nonsense, without names, or that is gone, has none', async () => {
    const nonsense = new DriverStatistics(
      async (_, bytes) => {
        bytes.fill(0xff, 4)
      },
      () => {},
    )
    assert.equal(await nonsense.read(7, 'eth0'), undefined)
    for (const errno of [ENODEV, EOPNOTSUPP]) {
      const absent = new DriverStatistics(
        async () => {
          throw new SystemError(errno, 'ask')
        },
        () => {},
      )
      assert.equal(await absent.read(7, 'eth0'), undefined)
    }
    const broken = new DriverStatistics(
      async () => {
        throw new SystemError(EIO, 'ask eth0')
      },
      () => {},
    )
    await assert.rejects(broken.read(7, 'eth0'), { message: 'ask eth0: EIO (i/o error)' })
  })
})

test('names and counters of a veth are those that ethtool shows', async t => {
  const namespace = makeNamespace(t)
  ipBatch(namespace, [
    'link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1',
    'link set v0 up',
    'link set v1 up',
  ])
  const socket = KernelSocket.open('socket', 2, 2, 0, namespace)
  t.after(() => socket.close())
  const ask = (bytes: Uint8Array) => socket.control(SIOCETHTOOL, 'v0', bytes, 'ask v0')
  const info = driverInfoRequest()
  await ask(info)
  const count = readStatisticsCount(info)
  const names = namesRequest(count)
  await ask(names)
  const counters = countersRequest(count)
  await ask(counters)
  const values = readCounters(counters, count)!
  const ours = readNames(names).map((name, i) => [name, `${values.getBigUint64(8 * i, true)}`])
  const text = execFileSync('ip', ['netns', 'exec', namespace, 'ethtool', '-S', 'v0'], { encoding: 'utf8' })
  const shown = [...text.matchAll(/^ +(\S.*): (\d+)$/gm)].map(([, name, value]) => [name, value])
  assert.ok(shown.length > 1, text)
  assert.deepEqual(ours, shown)
  assert.equal(ours[0]![0], 'peer_ifindex')

  // The kernel writes as many as there are: what was not made room for must not reach our memory.
  await assert.rejects(ask(countersRequest(0)), { code: 'EFAULT' })
  await assert.rejects(socket.control(SIOCETHTOOL, 'nobody', info, 'ask nobody'), { code: 'ENODEV' })
  await assert.rejects(socket.control(SIOCETHTOOL, 'a-name-of-more-than-15', info, 'ask'), { code: 'EINVAL' })

  const driverStatistics = DriverStatistics.open(namespace)
  t.after(() => driverStatistics.close())
  assert.equal(await driverStatistics.read(2, 'v0'), undefined)
})

test('a driver is asked no more after the end', async () => {
  const socket = KernelSocket.open('socket', 2, 2, 0)
  const under = socket.control(SIOCETHTOOL, 'lo', driverInfoRequest(), 'ask lo')
  socket.close()
  await under.catch(() => {})
  await assert.rejects(socket.control(SIOCETHTOOL, 'lo', driverInfoRequest(), 'ask lo'), { code: 'EBADF' })
})

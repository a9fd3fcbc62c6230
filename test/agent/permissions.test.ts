/** What the agent may not do, or does not find, is told of; what it can do goes on. */
import assert from 'node:assert/strict'
import { statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { kernelSamples } from '../../agent/sources/psample.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import {
  type Collector,
  countersSamplesOf,
  flowSamplesOf,
  type Lab,
  listen,
  makeLab,
  sendFrames,
  startAgent,
  until,
} from '../support/lab.ts'

const HOST = { type: 2, index: 1 }
const LOG_WARN = 40
const CAPABILITIES = '-net_raw,-net_admin,-sys_admin,-bpf'
const UNPRIVILEGED = ['setpriv', `--bounding-set=${CAPABILITIES}`, `--inh-caps=${CAPABILITIES}`]
const hasPsample = await kernelSamples()

/** Two samples each of the host and of eth0. */
async function expectCounters(lab: Lab, collector: Collector): Promise<void> {
  for (const source of [HOST, { type: 0, index: lab.host.eth0.ifIndex }]) {
    await until('counters samples', () => countersSamplesOf(collector, source)[1])
  }
}

test('root who may not give the control socket to the usual group keeps it', async t => {
  const lab = makeLab(t)
  const groups = join(lab.folder, 'group')
  writeFileSync(groups, 'root:x:0:\nweir:x:6343:\n')
  const socket = join(lab.folder, 'control.sock')
  const settings = `collector { ip = ${lab.peer.mgmt0.ipv4} }`
  const inGroups = ['unshare', '-m', 'sh', '-c', 'mount --bind "$0" /etc/group && exec "$@"', groups]
  const mode = async (under: readonly string[]) => {
    const args = ['--control', socket, '--no-drop']
    const agent = startAgent(t, lab, settings, { args, under: [...inGroups, ...under] })
    await agent.line(/^running$/)
    const { mode, gid } = statSync(socket)
    assert.equal((await agent.stop()).exit, 0)
    return [mode & 0o777, gid]
  }
  assert.deepEqual(await mode([]), [0o660, 6343])
  assert.deepEqual(await mode(['setpriv', '--bounding-set=-chown', '--inh-caps=-chown']), [0o600, 0])
})

describe('what the agent may not do or does not find', () => {
  test('without capabilities counters go on', async t => {
    const lab = makeLab(t)
    const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
    const agent = startAgent(
      t,
      lab,
      `polling = 1
      collector { ip = ${lab.peer.mgmt0.ipv4} }
      collector { name = elsewhere ip = 127.0.0.1 namespace = ${lab.peer.namespace} }
      pcap { dev = eth0 sampling = 1 }`,
      { under: UNPRIVILEGED },
    )
    await agent.line(/^running$/)
    await expectCounters(lab, collector)
    const { exit, status } = await agent.stop()
    assert.equal(exit, 0)
    assert.equal(status.flowSamples, 0)
    // A busy machine may make counters late, which is logged, too.
    const warnings = agent.log.filter(({ level, part }) => level >= LOG_WARN && part !== 'counters')
    assert.deepEqual(
      warnings.map(({ part, msg }) => `${part}: ${msg}`),
      [
        `collector: enter network namespace ${lab.peer.namespace}: EPERM (operation not permitted): needs CAP_SYS_ADMIN`,
        'pcap: eth0 is not sampled: open packet socket for eth0: EPERM (operation not permitted): needs CAP_NET_RAW; nor by BPF: load bpf/sample.bpf.o: EPERM (operation not permitted): needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN',
      ],
    )
    assert.equal(status.lost['collector elsewhere/not-ready'], status.datagrams)
  })

  test('without type information of the kernel it samples by packet sockets', async t => {
    const lab = makeLab(t)
    const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
    const agent = startAgent(
      t,
      lab,
      `polling = 0
      collector { ip = ${lab.peer.mgmt0.ipv4} }
      pcap { dev = eth0 sampling = 1 }`,
      { under: ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', 'sh'] },
    )
    const { msg } = await agent.line(/^sampling by packet sockets, not BPF/)
    assert.match(msg, /: the kernel tells nothing of its types \(CONFIG_DEBUG_INFO_BTF, /)
    await agent.line(/^eth0 is sampled 1 in 1 by a packet socket$/)
    const frame = Buffer.alloc(60, 0xff)
    sendFrames(lab.peer.namespace, lab.peer.eth0.ifIndex, frame, 3)
    await until('samples', () => flowSamplesOf(collector).length >= 3)
    assert.equal((await agent.stop()).exit, 0)
  })

  test('without PSAMPLE the agent waits for it', { skip: hasPsample && 'the kernel has it' }, async t => {
    const lab = makeLab(t)
    const collector = listen(t, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
    const agent = startAgent(
      t,
      lab,
      `polling = 1
      collector { ip = ${lab.peer.mgmt0.ipv4} }
      psample { }`,
    )
    const { part } = await agent.line(
      /^the kernel has no PSAMPLE now: load the module psample, or a driver that samples; waiting for it$/,
    )
    assert.equal(part, 'psample')
    await expectCounters(lab, collector)
    assert.equal((await agent.stop()).exit, 0)
    assert.equal(flowSamplesOf(collector).length, 0)
  })
})

/**
 * The installed agent where the system is not as it should be: killed, doubled, without room, without a place to write, with
 * a configuration that is broken when it is to be restarted.
 */
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { countersSamplesOf, listen, makeLab, until } from '../support/lab.ts'
import { agentOf } from './installed.ts'
import { NEXT, packageFile, Root, type RunOptions } from './root.ts'

const HOST = { type: 2, index: 1 }

describe('the installed agent', { concurrency: false }, () => {
  const scope = { after }
  const lab = makeLab(scope)
  const collector = listen(scope, lab.peer.namespace, { address: lab.peer.mgmt0.ipv4, port: SFLOW_PORT })
  const root = Root.make(scope, 'bookworm', lab.host.namespace)
  const at = (path: string) => join(root.path, path)
  const pidFile = at('run/weir/weir.pid')
  copyFileSync(packageFile('_amd64.deb'), at('tmp/weir.deb'))
  root.must('dpkg -i /tmp/weir.deb')
  const conf = `sFlow { polling = 1 collector { ip = ${lab.peer.mgmt0.ipv4} } }\n`
  writeFileSync(at('etc/weir.conf'), conf)

  class Agent {
    stderr = ''
    readonly child: ChildProcess
    readonly ended: Promise<number | string | null>

    constructor(line = 'weir run', options: RunOptions = {}) {
      this.child = root.start(line, options)
      this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
        this.stderr += text
      })
      this.ended = new Promise(resolve => this.child.on('close', (code, signal) => resolve(code ?? signal)))
    }

    /** Counters samples come after this call, too. */
    async sends(): Promise<void> {
      const before = collector.arrivals.length
      try {
        await until(
          'counters samples',
          () => countersSamplesOf({ ...collector, arrivals: collector.arrivals.slice(before) }, HOST)[1],
        )
      } catch (error) {
        throw new Error(`${(error as Error).message}; the agent wrote:\n${this.stderr}`)
      }
    }

    async stop(): Promise<void> {
      this.child.kill('SIGTERM')
      assert.equal(await this.ended, 0, this.stderr)
    }
  }

  test('killed: its stale pid file is no obstacle', async () => {
    const killed = new Agent()
    await killed.sends()
    killed.child.kill('SIGKILL')
    await killed.ended
    assert.ok(existsSync(pidFile))
    assert.notEqual(root.run('weir health').status, 0)
    root.must('weir cleanup')
    const next = new Agent()
    await next.sends()
    assert.equal(readFileSync(pidFile, 'utf8').split('\n')[0], String(next.child.pid))
    await next.stop()
    assert.equal(existsSync(pidFile), false)
  })

  test('a pid file of a process that is another one by now', async () => {
    mkdirSync(at('run/weir'), { recursive: true })
    writeFileSync(pidFile, `${process.pid}\n12345\n/etc/weir.conf\n`)
    const agent = new Agent()
    await agent.sends()
    await agent.stop()
  })

  test('a second one is refused, and told what to do', async () => {
    const first = new Agent()
    await first.sends()
    const { status, stderr } = root.run('timeout 60 weir run')
    assert.equal(status, 1)
    assert.match(
      stderr,
      /^weir: not started: .* belongs to a running agent, process \d+ with \/etc\/weir\.conf/m,
    )
    assert.match(stderr, /`weir reload` has it take a changed file/)
    await first.sends()
    assert.match(root.run('weir cleanup').stderr, /the agent runs, process \d+: it cleans up when it ends/)
    await first.stop()
  })

  test('everything read-only: it runs, and says what it does without', async () => {
    const agent = new Agent('weir run', { readOnly: true })
    await agent.sends()
    assert.match(agent.stderr, /`weir reload` does not find this agent: EROFS/)
    assert.match(agent.stderr, /other programs are not told the settings: EROFS/)
    await agent.stop()
  })

  test('full disks, also for its log: it runs', async () => {
    const full = ['run/weir', 'var/lib/weir'].flatMap(folder => [
      `mkdir -p "$0/${folder}"`,
      `mount -t tmpfs -o size=4k,mode=1777 full "$0/${folder}"`,
      `dd if=/dev/zero of="$0/${folder}/fill" bs=4k 2>/dev/null || true`,
    ])
    const agent = new Agent('weir run', { before: full })
    await agent.sends()
    assert.match(agent.stderr, /ENOSPC/)
    await agent.stop()
    const silent = new Agent('weir run 2>/dev/full', { before: full })
    await silent.sends()
    await silent.stop()
  })

  test('stopped for a while, as a suspended machine is: it goes on without a burst', async () => {
    const agent = new Agent()
    await agent.sends()
    agent.child.kill('SIGSTOP')
    await sleep(4000)
    const before = countersSamplesOf(collector, HOST).length
    agent.child.kill('SIGCONT')
    await agent.sends()
    const samples = countersSamplesOf(collector, HOST).slice(before)
    // One for the time that was missed, not one for each second of it.
    const uptimes = samples.map(({ arrival }) => arrival.datagram.uptime)
    for (let i = 2; i < uptimes.length; i++) assert.ok(uptimes[i]! - uptimes[i - 1]! > 300, uptimes.join(' '))
    await agent.stop()
  })

  /** The start script's exit status, and all that it says. */
  function init(action: string): { status: number | null; said: string } {
    const { status, stdout } = root.run(`/etc/init.d/weir ${action} 2>&1`)
    return { status, said: stdout }
  }

  test('its start script tells one that was killed from one that does not run, and stop cleans up after it', async () => {
    assert.equal(init('status').status, 3)
    assert.deepEqual(init('reload'), { status: 7, said: 'weir does not run\n' })
    assert.deepEqual(init('stop'), { status: 0, said: '' })
    assert.equal(init('start').status, 0)
    const pid = agentOf(root)
    assert.equal(init('status').status, 0)
    process.kill(pid, 'SIGKILL')
    await until('the end', () => init('status').status !== 0)
    assert.deepEqual(init('status'), {
      status: 1,
      said: 'weir does not run, and was killed: /run/weir/weir.pid is there\n',
    })
    assert.equal(init('reload').status, 7)
    const left = readdirSync(at('run/weir'))
    for (const name of [/^weir.pid$/, /^agent-.*pid$/, /^control.sock$/])
      assert.ok(left.some(one => name.test(one)))
    const { status, said } = init('stop')
    assert.equal(status, 0, said)
    assert.equal(said, `removed /run/weir/weir.pid of process ${pid}, which has ended\n`)
    assert.deepEqual(readdirSync(at('run/weir')), [])
    assert.equal(init('status').status, 3)
  })

  test('a broken configuration stops no agent that runs: neither a restart nor an upgrade', async () => {
    const sends = async () => {
      collector.arrivals.length = 0
      await until('counters samples', () => countersSamplesOf(collector, HOST)[1])
    }
    assert.equal(init('start').status, 0)
    const pid = agentOf(root)
    writeFileSync(at('etc/weir.conf'), 'sFlow { poling = 1 }\n')
    const restarted = init('restart')
    assert.equal(restarted.status, 6)
    assert.match(restarted.said, /weir\.conf:1:9: .*did you mean polling\?/s)
    assert.match(restarted.said, /weir is not restarted, and goes on with the configuration that it has/)
    assert.equal(agentOf(root), pid)

    copyFileSync(packageFile('_amd64.deb', NEXT), at('tmp/next.deb'))
    const upgraded = root.must('dpkg -i /tmp/next.deb 2>&1')
    assert.match(upgraded, /weir\.conf:1:9: .*did you mean polling\?/s)
    assert.match(
      upgraded,
      new RegExp(`THE NEW VERSION IS NOT STARTED.*weir: ${pid}, with the configuration that`, 's'),
    )
    assert.match(upgraded, /edit \/etc\/weir\.conf, run 'weir check', then '\/etc\/init\.d\/weir restart'/)
    assert.equal(agentOf(root), pid)
    await sends()

    // The old program would load new BPF objects.
    writeFileSync(at('etc/weir.conf'), conf)
    const reloaded = init('reload')
    assert.notEqual(reloaded.status, 0)
    assert.match(
      reloaded.said,
      new RegExp(`not reloaded: the files of the agent, process ${pid}, have been replaced`),
    )
    assert.equal(init('restart').status, 0)
    assert.notEqual(agentOf(root), pid)
    await sends()
    assert.equal(init('stop').status, 0)
  })

  test('removed, it says nothing of what is not there', () => {
    assert.doesNotMatch(root.must('dpkg --remove weir 2>&1'), /nothing of an agent/)
  })
})

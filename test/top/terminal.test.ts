/** The program in a terminal: tmux shows what a user sees, byte by byte as a terminal takes it. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { pcap } from '../decode/capture.ts'
import { freePort } from '../support/free-port.ts'
import { makeLab, sendFlow, sink, startAgent, until } from '../support/lab.ts'
import { counters, datagram, drop, flow } from '../view/datagrams.ts'

const MAIN = join(import.meta.dirname, '../../agent/main.ts')

interface Terminal {
  screen(): string
  press(...keys: string[]): void
  resize(columns: number, rows: number): void
  /** Resolves with the screen when it matches. */
  shows(pattern: RegExp): Promise<string>
  /** The exit status, once the program has ended and the shell has told it. */
  ended(): Promise<string>
  pid(): number
}

/** Runs `weir top` in a shell in a terminal of its own. */
function terminal(
  context: TestContext,
  args: readonly string[],
  { environment = '', under = '' } = {},
): Terminal {
  const folder = mkdtempSync(join(tmpdir(), 'weir-tmux-'))
  const tmux = (...words: string[]) =>
    execFileSync('tmux', ['-S', join(folder, 'socket'), '-f', '/dev/null', ...words], { encoding: 'utf8' })
  context.after(() => {
    try {
      tmux('kill-server')
    } catch {
      // It has ended by itself.
    }
    rmSync(folder, { recursive: true })
  })
  const command = `${under} ${process.execPath} ${MAIN} top ${args.join(' ')}`
  writeFileSync(
    join(folder, 'run.sh'),
    `echo before\n${environment} LC_ALL=C.UTF-8 ${command}\nstatus=$?\nstty -a | grep -q 'icanon' && echo "cooked again"\necho "ended with $status"\nexec sleep 600\n`,
  )
  tmux('new-session', '-d', '-s', 'top', '-x', '80', '-y', '24', `sh ${join(folder, 'run.sh')}`)
  const screen = () => tmux('capture-pane', '-p', '-t', 'top')
  const shows = async (pattern: RegExp): Promise<string> => {
    try {
      return await until(`${pattern}`, () => (pattern.test(screen()) ? screen() : undefined))
    } catch (error) {
      throw new Error(`${(error as Error).message}; the screen is:\n${screen()}`)
    }
  }
  return {
    screen,
    shows,
    press: (...keys) => void tmux('send-keys', '-t', 'top', ...keys),
    resize: (columns, rows) => void tmux('resize-window', '-t', 'top', '-x', `${columns}`, '-y', `${rows}`),
    ended: async () => /ended with (\w+)/.exec(await shows(/ended with/))![1]!,
    pid: () => {
      const shell = tmux('display-message', '-p', '-t', 'top', '#{pane_pid}').trim()
      const children = readFileSync(`/proc/${shell}/task/${shell}/children`, 'utf8').trim().split(' ')
      return Number(children[0])
    },
  }
}

test('--print tells when nothing was understood, and fails', t => {
  const folder = mkdtempSync(join(tmpdir(), `weir-print-${process.pid}-`))
  t.after(() => rmSync(folder, { recursive: true }))
  const print = (name: string, bytes: Uint8Array) => {
    writeFileSync(join(folder, name), bytes)
    const args = [MAIN, 'top', '--print', join(folder, name)]
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    return { status, stderr: stderr.replaceAll(folder, '') }
  }
  const none = 'and nothing of sFlow version 5; `weir decode` tells why'
  assert.deepEqual(print('garbage', Buffer.alloc(100, 7)), {
    status: 1,
    stderr: `weir top: /garbage: 1 datagram, ${none}\n`,
  })
  assert.deepEqual(print('garbage.pcap', pcap(Buffer.alloc(100, 7), Buffer.alloc(3))), {
    status: 1,
    stderr: `weir top: /garbage.pcap: 2 datagrams, ${none}\n`,
  })
  assert.deepEqual(print('empty.pcap', pcap()), {
    status: 1,
    stderr: 'weir top: /empty.pcap: no datagram to UDP port 6343\n',
  })
  assert.deepEqual(print('one.pcap', pcap(datagram([flow({})]))), { status: 0, stderr: '' })
})

test('a UDP port: tabs, keys, filter, pause, resize, and the terminal as it was', async context => {
  const port = await freePort()
  const top = terminal(context, ['--listen', `127.0.0.1:${port}`])
  const first = await top.shows(/5-tuple/)
  assert.match(first, /no flow samples yet/)
  const socket = createSocket('udp4')
  let seconds = 0
  const send = () => {
    seconds++
    const samples = [
      flow({ bytes: 900, queue: 1, depth: 4500, delay: 2_000_000 }),
      flow({ src: '10.7.7.7', bytes: 100 }),
    ]
    const ports = [
      counters(2, { name: 'swp\u001b[2J1', inOctets: BigInt(seconds * 1e6) }),
      counters(3, { name: 'swp2' }),
    ]
    const bytes = datagram([...samples, drop({ kernel: 'evil\u001b]0;x\u0007' }), ...ports], {
      uptime: seconds * 1000,
    })
    socket.send(bytes, port, '127.0.0.1')
  }
  const timer = setInterval(send, 200)
  context.after(() => {
    clearInterval(timer)
    socket.close()
  })
  const flows = await top.shows(/10\.0\.0\.1:40000 +10\.0\.0\.2:53/)
  assert.match(flows, /UDP 127\.0\.0\.1:\d+ /)
  top.press('k', 'k')
  assert.match(await top.shows(/by source/), /10\.7\.7\.7 /)
  top.press('/')
  top.press('-l', '10.7')
  await top.shows(/filter: 10\.7_/)
  top.press('Enter')
  const filtered = await top.shows(/by source, only "10\.7"/)
  assert.doesNotMatch(filtered, /10\.0\.0\.1 /)
  top.press('2')
  assert.match(await top.shows(/last packet/), /acl +evil\\x1b\]0;x\\x07/)
  top.press('3')
  assert.match(await top.shows(/at most 2\.00 ms/), /swp2 +1 +2\.00 ms .*4\.50 kB/)
  top.press('4')
  await top.shows(/swp\\x1b\[2J1 +up +1\.00 Gb\/s +\d/)
  top.press('p')
  await top.shows(/PAUSED/)
  top.press('p', '1')
  top.resize(120, 30)
  const wide = await top.shows(/samples share/)
  assert.equal(wide.trimEnd().split('\n').length, 30)
  top.press('?')
  await top.shows(/196 √\(1\/n\) %/)
  // tmux itself mixes the two screens when it leaves the second one at another size than it entered it.
  top.resize(80, 24)
  await until('small screen', () => {
    const [title = ''] = top.screen().split('\n')
    return title.length <= 80 && / \d\d:\d\d:\d\d ?$/.test(title)
  })
  top.press('q')
  assert.equal(await top.ended(), '0')
  const after = top.screen()
  assert.match(after, /before\n(.*\n)*cooked again/)
  assert.doesNotMatch(after, /5-tuple/)
})

test('a signal and an error leave the terminal as it was, too', async context => {
  const port = await freePort()
  const top = terminal(context, ['--listen', `127.0.0.1:${port}`], { environment: 'NO_COLOR=1' })
  await top.shows(/5-tuple/)
  process.kill(top.pid(), 'SIGTERM')
  assert.equal(await top.ended(), '0')
  assert.match(top.screen(), /cooked again/)
  const none = terminal(context, ['--socket', '/no/such/socket'])
  assert.equal(await none.ended(), '1')
  assert.match(none.screen(), /weir top: no agent answers at \/no\/such\/socket/)
})

test('Ctrl-Z gives the terminal back, and fg takes it again', async context => {
  const port = await freePort()
  const top = terminal(context, ['--listen', `127.0.0.1:${port}`], { under: 'exec bash --norc -i; :' })
  await top.shows(/bash-\S+[#$]/)
  top.press(`LC_ALL=C.UTF-8 ${process.execPath} ${MAIN} top --listen 127.0.0.1:${port}`, 'Enter')
  await top.shows(/5-tuple/)
  top.press('C-z')
  assert.doesNotMatch(await top.shows(/Stopped/), /5-tuple/)
  top.press('fg', 'Enter')
  await top.shows(/5-tuple/)
  top.press('q')
  await until('shell', () => !/5-tuple/.test(top.screen()))
  assert.match(top.screen(), /bash-\S+[#$] fg/)
})

test('a capture, and as text without a terminal', async context => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-top-'))
  context.after(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'flows.pcap')
  writeFileSync(
    file,
    pcap(...Array.from({ length: 11 }, () => datagram([flow({ rate: 1000, bytes: 1250 })]))),
  )
  // 11,000 packets of 1,250 bytes in the 10 seconds between the first and the last.
  const top = terminal(context, [file])
  await top.shows(/10\.0\.0\.1:40000 +10\.0\.0\.2:53 +11\.0 Mb\/s +1\.10 k\/s/)
  top.press('C-c')
  assert.equal(await top.ended(), '0')
  const text = execFileSync(process.execPath, [MAIN, 'top', '--by', 'pair', file], { encoding: 'utf8' })
  assert.match(text, /10\.0\.0\.1 +10\.0\.0\.2 +11\.0 Mb\/s +1\.10 k\/s/)
})

test('an agent with real traffic', async context => {
  const lab = makeLab(context)
  const socket = join(lab.folder, 'control.sock')
  const settings = `
    polling = 5
    sampling = 4
    sampling.10G = 4
    collector { ip = ${lab.peer.mgmt0.ipv4} }
    pcap { dev = eth0 }`
  const agent = startAgent(context, lab, settings, { args: ['--control', socket] })
  await agent.line(/^eth0 is sampled/)
  const from = { address: lab.peer.eth0.ipv4, port: 40_001 }
  const to = { address: lab.host.eth0.ipv4, port: 9001 }
  sink(context, lab.host.namespace, to)
  const top = terminal(context, ['--socket', socket])
  await top.shows(/5-tuple/)
  const timer = setInterval(
    () => sendFlow(lab.peer.namespace, { from, to, payloadBytes: 958, packets: 100 }),
    200,
  )
  context.after(() => clearInterval(timer))
  const flows = await top.shows(new RegExp(`UDP +${from.address}:40001 +${to.address}:9001 +\\d`))
  assert.match(flows, /weir top {2}agent /)
  top.press('4')
  const ports = await top.shows(/eth0 +up +10\.0 Gb\/s +\d/)
  assert.match(ports, /mgmt0 +up/)
  top.press('5')
  await top.shows(new RegExp(`${lab.peer.mgmt0.ipv4}:6343 +\\d+ datagrams`))
  // The agent ends, and top tells and waits for the next one.
  clearInterval(timer)
  await agent.stop()
  await top.shows(/no agent answers|has ended/)
  top.press('q')
  assert.equal(await top.ended(), '0')
})

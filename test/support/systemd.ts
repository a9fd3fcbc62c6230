/**
 * Units as systemd has them, behind the real message bus of Debian: a bus of the test's own, on which the test owns the
 * name of systemd and answers for it. The control groups of the units are real, and so are their processes.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FramedSocket } from '../../agent/virtual/framed-socket.ts'
import {
  DBUS_MESSAGE,
  type DbusMessage,
  type DbusValue,
  dbusMessageLength,
  readDbusMessage,
  writeDbusMessage,
} from '../../agent/wire/dbus.ts'
import { isCgroup1, listening, startDaemon } from './containers.ts'
import type { Scope } from './lab.ts'

export interface FakeUnit {
  readonly name: string
  readonly active: string
  readonly sub: string
  /** Empty for none. */
  readonly group: string
}

export interface FakeSystemd {
  /** Socket of the bus. */
  readonly socket: string
  /** What is told from now on. */
  units: readonly FakeUnit[]
  /** Calls that were answered. */
  readonly calls: string[]
  /** False: calls are not answered any more. */
  answers: boolean
}

/** Starts dbus-daemon and answers on it for systemd. */
export async function startFakeSystemd(scope: Scope, folder: string): Promise<FakeSystemd> {
  const base = join(folder, 'dbus')
  mkdirSync(base)
  const socket = join(base, 'bus.sock')
  writeFileSync(
    join(base, 'bus.conf'),
    `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path=${socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow user="*"/>
  </policy>
</busconfig>
`,
  )
  startDaemon(scope, base, ['dbus-daemon', '--nofork', `--config-file=${join(base, 'bus.conf')}`])
  await listening(socket, join(base, 'dbus-daemon.log'))
  const fake: FakeSystemd = { socket, units: [], calls: [], answers: true }
  await serve(scope, fake)
  return fake
}

const SYSTEMD = 'org.freedesktop.systemd1'

function serve(scope: Scope, fake: FakeSystemd): Promise<void> {
  return new Promise((resolve, reject) => {
    let isOpen = false
    let serial = 0
    const send = (message: Omit<DbusMessage, 'serial'>) => {
      bus.send(writeDbusMessage({ ...message, serial: ++serial }))
    }
    const bus = new FramedSocket({
      path: fake.socket,
      lengthOf: bytes => {
        const end = bytes.indexOf(0x0a)
        return isOpen ? dbusMessageLength(bytes) : end < 0 ? undefined : end + 1
      },
      maxFrameBytes: 1 << 20,
      maxBytes: 1 << 30,
      onEnd: reject,
      onFrame: frame => {
        if (!isOpen) {
          isOpen = true
          bus.send(Buffer.from('BEGIN\r\n'))
          const name = 'org.freedesktop.DBus'
          const common = {
            type: DBUS_MESSAGE.methodCall,
            destination: name,
            path: '/org/freedesktop/DBus',
            interface: name,
          }
          send({ ...common, member: 'Hello', signature: '', body: [] })
          send({ ...common, member: 'RequestName', signature: 'su', body: [SYSTEMD, 4] })
          return
        }
        const message = readDbusMessage(frame)
        if (message.type === DBUS_MESSAGE.methodReturn && message.signature === 'u') resolve()
        if (message.type !== DBUS_MESSAGE.methodCall || !fake.answers) return
        const { signature, body } = answerTo(fake, message)
        const isError = signature === 'error'
        send({
          type: isError ? DBUS_MESSAGE.error : DBUS_MESSAGE.methodReturn,
          destination: message.sender!,
          replySerial: message.serial,
          signature: isError ? 's' : signature,
          body,
          ...(isError ? { errorName: 'org.freedesktop.DBus.Error.UnknownMethod' } : {}),
        })
      },
    })
    scope.after(() => bus.close())
    bus.send(Buffer.from(`\0AUTH EXTERNAL ${Buffer.from(String(process.getuid!())).toString('hex')}\r\n`))
  })
}

function answerTo(fake: FakeSystemd, call: DbusMessage): { signature: string; body: DbusValue[] } {
  const { path = '', interface: name = '', member = '', body } = call
  fake.calls.push(`${path} ${name}.${member}(${body.flat().join(', ')})`)
  if (name === `${SYSTEMD}.Manager` && member === 'ListUnitsByPatterns') {
    const units = fake.units.map(({ name, active, sub }, i) => {
      return [name, `the service ${name}`, 'loaded', active, sub, '', `/unit/${i}`, 0, '', '/']
    })
    return { signature: 'a(ssssssouso)', body: [units] }
  }
  const unit = fake.units[Number(/^\/unit\/(\d+)$/.exec(path)?.[1])]
  if (unit !== undefined && member === 'Get' && body[1] === 'ControlGroup') {
    return { signature: 'v', body: [{ signature: 's', value: unit.group }] }
  }
  return { signature: 'error', body: [`no such method ${member}`] }
}

const HIERARCHIES = isCgroup1
  ? ['cpu', 'cpuacct', 'cpuset', 'memory', 'blkio', 'systemd'].map(name => `/sys/fs/cgroup/${name}`)
  : ['/sys/fs/cgroup']

/** Makes a control group like those of systemd, with the controllers that there are, and starts a program in it. */
export function startUnitProcess(
  scope: Scope,
  group: string,
  command: readonly [string, ...string[]],
): { child: ChildProcess; folderOf(controller: string): string } {
  const made: string[] = []
  for (const hierarchy of HIERARCHIES) {
    if (!existsSync(hierarchy)) continue
    let path = hierarchy
    for (const part of group.split('/').filter(part => part !== '')) {
      if (!isCgroup1) {
        for (const controller of ['cpu', 'memory', 'io', 'cpuset']) enable(path, controller)
      }
      path = join(path, part)
      if (!existsSync(path)) {
        mkdirSync(path)
        made.push(path)
      }
      // A new set of CPUs is empty, and nothing runs on none.
      if (hierarchy.endsWith('/cpuset')) copySets(path)
    }
  }
  const [program, ...args] = command
  const child = spawn('sh', ['-c', 'read line; exec "$@"', 'sh', program, ...args], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  const ended = new Promise(resolve => child.on('close', resolve))
  scope.after(async () => {
    child.kill('SIGKILL')
    await ended
    for (const path of made.reverse()) rmdirSync(path)
  })
  for (const hierarchy of HIERARCHIES) {
    if (existsSync(hierarchy)) writeFileSync(join(hierarchy, group, 'cgroup.procs'), String(child.pid))
  }
  child.stdin!.end('go\n')
  const folderOf = (controller: string) =>
    join(isCgroup1 ? `/sys/fs/cgroup/${controller}` : '/sys/fs/cgroup', group)
  return { child, folderOf }
}

function enable(path: string, controller: string): void {
  try {
    writeFileSync(join(path, 'cgroup.subtree_control'), `+${controller}`)
  } catch {
    // A kernel without it: then there is nothing to read either.
  }
}

function copySets(path: string): void {
  for (const name of ['cpuset.cpus', 'cpuset.mems']) {
    writeFileSync(join(path, name), readFileSync(join(path, '..', name), 'utf8'))
  }
}

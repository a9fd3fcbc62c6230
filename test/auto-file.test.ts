import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { AutoFile, type RunningSettings, settingsLines } from '../agent/auto-file.ts'
import { loadConfig } from '../agent/config/load.ts'

const addresses = { address: '10.0.0.1', device: 'eth0' }

function settings(text: string, more: Partial<RunningSettings> = {}): RunningSettings {
  const { config } = loadConfig(`sFlow { ${text} }`, 'a')
  assert.ok(config)
  return { config, ...addresses, collectorAddresses: config.collectors.map(({ host }) => host), ...more }
}

const start = [`hostname=${hostname()}`]
const rows = [
  {
    name: 'defaults',
    of: settings('collector { ip = 192.0.2.1 }'),
    lines: [
      'sampling=400',
      'header=128',
      'datagram=1400',
      'polling=30',
      'collector=192.0.2.1',
      'agentIP=10.0.0.1',
      'agent=eth0',
      'ds_index=1',
    ],
  },
  {
    name: 'everything: entries newest first, collectors sorted as text',
    of: settings(`sampling = 1 headerBytes = 64 datagramBytes = 1200 polling = 5
      sampling.10G = 100
      sampling.http = 50
      polling.http = 20
      polling.app.web = 7
      agentIP = 203.0.113.9 agent = eth1 json { udpport = 36343 }
      collector { ip = 192.0.2.2 udpport = 7000 }
      collector { ip = 192.0.2.1 }
      collector { ip = 192.0.2.1 dev = mgmt }
      collector { ip = 2001:db8::1 namespace = red }`),
    lines: [
      'sampling=1',
      'header=64',
      'datagram=1200',
      'polling=5',
      'polling.app.web=7',
      'sampling.http=50',
      'polling.http=20',
      'sampling.10G=100',
      'agentIP=203.0.113.9',
      'agent=eth1',
      'collector=192.0.2.1',
      'collector=192.0.2.1/6343/mgmt/',
      'collector=192.0.2.2 7000',
      'collector=2001:db8::1/6343//red',
      'jsonPort=36343',
      'ds_index=1',
    ],
  },
  {
    name: 'a name is told by its address, once that is known',
    of: settings('collector { ip = a.example } collector { ip = b.example }', {
      collectorAddresses: ['192.0.2.7', undefined],
      device: undefined,
    }),
    lines: [
      'sampling=400',
      'header=128',
      'datagram=1400',
      'polling=30',
      'collector=192.0.2.7',
      'collector=b.example',
      'agentIP=10.0.0.1',
      'ds_index=1',
    ],
  },
]
for (const { name, of, lines } of rows) {
  test(`settings: ${name}`, () => assert.deepEqual(settingsLines(of), [...start, ...lines]))
}

test('settings: nothing is told without an agent address or a collector', () => {
  assert.deepEqual(settingsLines(settings('collector { ip = 192.0.2.1 }', { address: undefined })), [])
  assert.deepEqual(settingsLines(settings('sonic { }')), [])
})

test('the file: written in place, and only when something changes', t => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-auto-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'hsflowd.auto')
  const file = new AutoFile(path)
  t.after(() => file.close())
  const long = settings('collector { ip = 192.0.2.1 } collector { ip = 192.0.2.2 }')
  assert.equal(readFileSync(path, 'utf8'), '')
  file.update(long)
  const { ino } = statSync(path)
  const revision = () => /^rev_start=(\d+)\n(?:.*\n)*rev_end=\1\n$/m.exec(readFileSync(path, 'utf8'))?.[1]
  assert.equal(revision(), '1')
  file.update(long)
  assert.equal(revision(), '1')
  const short = settings('collector { ip = 192.0.2.1 }')
  file.update(short)
  assert.equal(
    readFileSync(path, 'utf8'),
    [
      '# Written by weir while it runs: do not edit.',
      'rev_start=2',
      ...settingsLines(short),
      'rev_end=2',
      '',
    ].join('\n'),
  )
  assert.equal(statSync(path).ino, ino)
})

/** What is told to be wrong with a running agent, and what to do. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '../../agent/config/load.ts'
import { type Status, wantsPackets } from '../../agent/control/status.ts'
import { warningsOf } from '../../agent/control/warnings.ts'

const collector = {
  name: 'main',
  address: '192.0.2.9',
  port: 6343,
  offered: 10,
  sent: 10,
  bytes: 1000,
  lost: 0,
  reported: 0,
  ageSeconds: 1,
  errors: {},
  problem: undefined,
  unreachableSeconds: undefined,
}
const well: Status = {
  agent: {
    version: '1',
    pid: 1,
    uptimeSeconds: 1000,
    configuration: '/etc/weir.conf',
    address: '192.0.2.1',
    addressInterface: 'eth0',
    subAgentId: 1,
    pollingSeconds: 30,
    wantsPackets: true,
    replaced: false,
  },
  process: { cpuSeconds: 1, residentBytes: 1, heapBytes: 1 },
  collectors: [collector],
  sources: [{ name: 'psample', state: 'listening', offered: 0, delivered: 0, underWay: 0, lost: {} }],
  interfaces: [],
  drops: null,
  unheard: [],
  samples: { flows: 0, merged: 0, counters: 0, drops: 0, datagrams: 0 },
  ledger: { identities: [], losses: [] },
  log: [],
}
const port = {
  name: 'swp1',
  ifIndex: 3,
  speedBitsPerSecond: 1e10,
  up: true,
  sampledBy: 'tc',
  problem: null,
  rate: 1000,
  samples: 0,
  pool: 0,
  drops: 0,
}
const source = (state: string): Partial<Status> => ({ sources: [{ ...well.sources[0]!, state }] })
const losses = (stage: string, count: number): Partial<Status> => ({
  ledger: { identities: [], losses: [{ stage, cause: 'ring-full', count, help: 'sample fewer packets' }] },
})
const difference = (difference: number): Partial<Status> => ({
  ledger: {
    identities: [{ stage: 'bpf', unit: 'samples', offered: 9, parts: [], underWay: 0, difference }],
    losses: [],
  },
})

const cases: {
  name: string
  now?: Partial<Status>
  before?: Partial<Status>
  what: RegExp[]
  mend?: RegExp
}[] = [
  { name: 'all is well', what: [] },
  {
    name: 'no address',
    now: { agent: { ...well.agent, address: null } },
    what: [/no interface has an address/],
  },
  { name: 'no collector', now: { collectors: [] }, what: [/there is no collector/] },
  {
    name: 'nobody listens',
    now: {
      collectors: [{ ...collector, problem: 'datagrams to 192.0.2.9 port 6343 do not arrive: ECONNREFUSED' }],
    },
    what: [/^collector main: datagrams to .* ECONNREFUSED$/],
    mend: /nothing listens there/,
  },
  {
    name: 'no neighbour',
    now: {
      collectors: [
        {
          ...collector,
          problem: 'datagrams to 192.0.2.9 port 6343 do not arrive: EHOSTUNREACH',
          unreachableSeconds: 225.3,
        },
      ],
    },
    what: [/do not arrive: EHOSTUNREACH, for 3 min 45 s$/],
    mend: /^no host answers there: .* ip neigh show 192\.0\.2\.9 /,
  },
  ...[
    ['EPERM (operation not permitted): needs CAP_NET_ADMIN', /weir doctor/],
    ['EOPNOTSUPP: the driver does not sample in hardware', /sw = on/],
    ['ENOENT: needs the kernel modules', /modprobe cls_matchall act_sample/],
  ].map(([problem, mend]) => ({
    name: `an interface that cannot be sampled: ${problem}`,
    now: { interfaces: [{ ...port, problem: `add an ingress sampler to swp1: ${problem}` }] },
    what: [
      new RegExp(
        `^swp1 is not sampled \\(tc\\): add an ingress sampler to swp1: ${(problem as string).slice(0, 5)}`,
      ),
    ],
    mend: mend as RegExp,
  })),
  {
    name: 'no route',
    now: { collectors: [{ ...collector, problem: 'datagrams … are not sent: ENETUNREACH' }] },
    what: [/ENETUNREACH/],
    mend: /route/,
  },
  {
    name: 'silence',
    now: { collectors: [{ ...collector, ageSeconds: 100 }] },
    what: [/^collector main has got nothing for 1 min 40 s$/],
  },
  {
    name: 'a module that is not there',
    now: source('waiting for the kernel module'),
    what: [/^psample: waiting/],
    mend: /modprobe/,
  },
  { name: 'nothing sampled', now: { sources: [] }, what: [/^no packets are sampled$/] },
  {
    name: 'an upgrade that did not restart it',
    now: { agent: { ...well.agent, replaced: true } },
    what: [/^the files of the agent have been replaced: it takes no other configuration$/],
    mend: /restart/,
  },
  {
    name: 'counters alone, as asked for',
    now: { sources: [], agent: { ...well.agent, wantsPackets: false } },
    what: [],
  },
  { name: 'firewall rules choose', now: { sources: [{ ...well.sources[0]!, name: 'nflog' }] }, what: [] },
  {
    name: 'a server that cannot listen',
    now: { unheard: [{ name: 'web', problem: 'listen at 127.0.0.1 port 8008: EADDRINUSE' }] },
    what: [/^web: listen at 127\.0\.0\.1 port 8008: EADDRINUSE$/],
    mend: /web \{ listen = … \}/,
  },
  {
    name: 'a port that cannot be listened at',
    now: { unheard: [{ name: 'json', problem: 'listen on ::1 port 36343: EADDRINUSE' }] },
    what: [/^json: listen on ::1 port 36343: EADDRINUSE$/],
    mend: /json \{ udpport = … \}/,
  },
  {
    name: 'a sample that nobody knows of',
    now: difference(1),
    what: [/^bpf: 1 sample is not accounted for$/],
  },
  {
    name: 'samples that nobody knows of',
    now: difference(3),
    what: [/^bpf: 3 samples are not accounted for$/],
  },
  {
    name: 'samples that were counted twice',
    now: difference(-3),
    what: [/^bpf: 3 samples are counted twice$/],
  },
  { name: 'losses of long ago', now: losses('bpf', 7), before: losses('bpf', 7), what: [] },
  {
    name: 'losses now',
    now: losses('bpf', 9),
    before: losses('bpf', 7),
    what: [/^bpf\/ring-full: 2 lost just now$/],
    mend: /^sample fewer/,
  },
  {
    name: 'less in a sample is no loss of it',
    now: losses('transit', 9),
    before: losses('transit', 7),
    what: [],
  },
]
for (const { name, now, before, what, mend } of cases) {
  test(`warnings: ${name}`, () => {
    const warnings = warningsOf({ ...well, ...now }, before && { ...well, ...before })
    assert.equal(warnings.length, what.length, JSON.stringify(warnings))
    for (const [i, expected] of what.entries()) assert.match(warnings[i]!.what, expected)
    for (const warning of warnings) assert.ok(warning.mend.length > 10)
    if (mend !== undefined) assert.match(warnings[0]!.mend, mend)
  })
}

const none = 'pcap { sampling = 0 }'
for (const [settings, expected] of [
  ['', false],
  ['pcap { }', true],
  [none, false],
  [`${none} pcap { dev = eth0 }`, true],
  ['sampling = 0 pcap { } tc { } nflog { group = 5 }', false],
  ['sampling = 0 pcap { sampling = 5 }', true],
  ['sampling = 0 sampling.10G = 5 pcap { }', true],
  ['sampling = 0 sampling.bps_ratio = 5 tc { }', true],
  ['sampling = 0 psample { }', true],
  ['nflog { group = 5 }', true],
] as const) {
  test(`${settings || 'no block'} ${expected ? 'asks' : 'does not ask'} for packets`, () => {
    const { config } = loadConfig(`sFlow { ${settings} collector { ip = 192.0.2.1 } }`, 'a')
    assert.equal(wantsPackets(config!), expected)
  })
}

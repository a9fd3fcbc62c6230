/**
 * Every setting and block of the configuration file, each declared once. The parser, the values it gives, the
 * default file and the reference page all come from this table. Names, ranges and defaults are hsflowd's unless
 * marked `ours`.
 */

import * as kind from './kinds.ts'

type Kind<T> = kind.Kind<T>

interface Traits {
  /** Other names of the same thing. */
  readonly also?: readonly string[]
  /** One or two sentences for the reference and the default file. */
  readonly doc: string
  /** weir's own: hsflowd does not know it. */
  readonly ours?: true
  /** Accepted but not acted on; says why or what is missing, to follow "has no effect: ". */
  readonly inactive?: string
  /** An old form; says what to write now, to follow "is an old form: ". */
  readonly deprecated?: string
}

/** One value that was given for a setting. */
export interface Given {
  /** For a family, the name after its prefix, as written; else empty. */
  readonly suffix: string
  readonly value: unknown
}

export interface Setting<V> extends Traits {
  readonly form: 'setting'
  readonly kind: Kind<unknown>
  /** Its default as it would be written; undefined when there is none. */
  readonly initial: string | undefined
  /** True when giving it again adds to it, false when the last one wins. */
  readonly many: boolean
  /** For a family, what to call the part after the prefix; else undefined. */
  readonly suffix: string | undefined
  /** A value for the default file, where there is no default. */
  readonly example?: string
  /** The setting's value from all that was given, in the order of the file. */
  collect(given: readonly Given[]): V
}

// biome-ignore lint/suspicious/noExplicitAny: the table holds settings of every type
export type Entries = Readonly<Record<string, Setting<any> | Block<any, boolean>>>

export interface Block<E extends Entries, Many extends boolean> extends Traits {
  readonly form: 'block'
  /** True when each block adds one, false when they are all one. */
  readonly many: Many
  /** When a block that is not `many` is opened again: start from the defaults, or keep what was set before. */
  readonly again: 'restart' | 'continue'
  readonly entries: E
}

/** What a block's settings come to: its own type for each, `undefined` for a block that is not there. */
export type ValuesOf<E extends Entries> = {
  readonly [K in keyof E]: E[K] extends Setting<infer V>
    ? V
    : E[K] extends Block<infer Inner, infer Many>
      ? Many extends true
        ? readonly ValuesOf<Inner>[]
        : ValuesOf<Inner> | undefined
      : never
}

/** A setting with a default. */
function setting<T>(
  kind: Kind<T>,
  initial: string,
  doc: string,
  traits: Omit<Traits, 'doc'> = {},
): Setting<T> {
  const reading = kind.read(initial)
  if (!('value' in reading)) throw new Error(`default "${initial}" is not ${kind.expected}`)
  const collect = (given: readonly Given[]) =>
    given.length === 0 ? reading.value : (given.at(-1)!.value as T)
  return { form: 'setting', kind, initial, many: false, suffix: undefined, doc, ...traits, collect }
}

/** A setting without a default. */
function optional<T>(
  kind: Kind<T>,
  example: string,
  doc: string,
  traits: Omit<Traits, 'doc'> = {},
): Setting<T | undefined> {
  const collect = (given: readonly Given[]) => given.at(-1)?.value as T | undefined
  return {
    form: 'setting',
    kind,
    initial: undefined,
    many: false,
    suffix: undefined,
    example,
    doc,
    ...traits,
    collect,
  }
}

/** A setting that may be given several times. */
function several<T>(
  kind: Kind<T>,
  example: string,
  doc: string,
  traits: Omit<Traits, 'doc'> = {},
): Setting<readonly T[]> {
  const collect = (given: readonly Given[]) => given.map(({ value }) => value as T)
  return {
    form: 'setting',
    kind,
    initial: undefined,
    many: true,
    suffix: undefined,
    example,
    doc,
    ...traits,
    collect,
  }
}

/** Settings that share the prefix they are declared under; what follows it is a name of the user's. */
function family<T>(
  kind: Kind<T>,
  suffix: string,
  example: string,
  doc: string,
  traits: Omit<Traits, 'doc'> = {},
): Setting<ReadonlyMap<string, T>> {
  const collect = (given: readonly Given[]) => new Map(given.map(({ suffix, value }) => [suffix, value as T]))
  return { form: 'setting', kind, initial: undefined, many: false, suffix, example, doc, ...traits, collect }
}

function block<const E extends Entries>(
  entries: E,
  doc: string,
  traits: Omit<Traits, 'doc'> & { readonly again?: 'restart' } = {},
): Block<E, false> {
  return { form: 'block', many: false, again: 'continue', entries, doc, ...traits }
}

/** A block of which there may be several. */
function blocks<const E extends Entries>(
  entries: E,
  doc: string,
  traits: Omit<Traits, 'doc'> = {},
): Block<E, true> {
  return { form: 'block', many: true, again: 'continue', entries, doc, ...traits }
}

const device = kind.word('an interface name')
const path = kind.word('a path')
const port = kind.int(0, 65535)
const rate = kind.int(0, 10_000_000)
const seconds = kind.int(0, 300)

const NO_PODS = 'interfaces of pods are sampled as all others are'
const NO_MARKS =
  'a service has no addresses of its own that would tell its packets; docker, containerd and k8s mark those of containers and pods'
const KERNEL_EVENTS = 'interfaces are followed by kernel events, at once'
const vendor = (what: string) => `support for ${what} is not part of weir yet`

/** Settings that several container blocks share. */
const containers = {
  refreshVMs: optional(
    kind.int(60, 3600),
    '60',
    'Seconds between searches for new ones; else the top-level value.',
  ),
  forgetVMs: optional(
    kind.int(60),
    '180',
    'Seconds after which one that is gone is forgotten; else the top-level value.',
  ),
  hostname: setting(kind.onOff(), 'off', "Report the container's own host name in place of its name."),
  markTraffic: setting(
    kind.onOff(),
    'off',
    'Tell of the containers that a sampled packet comes from and goes to, by their addresses.',
  ),
  socket: optional(path, '/run/podman/podman.sock', 'Unix socket to ask, where it is not the usual one.', {
    ours: true,
  }),
} as const

const swp = '^swp[0-9s]+$'

/** The contents of `sFlow { }`. */
export const settings = {
  sampling: setting(
    rate,
    '400',
    'Sampling rate, 1 in N packets, of interfaces whose speed is not known; 0 takes none.',
    {
      also: ['packetSamplingRate'],
    },
  ),
  'sampling.': family(
    rate,
    'speed',
    'sampling.10G = 10000',
    'Sampling rate of interfaces of exactly this speed: 10G, 100M; 2.5 Gb/s is named 2G. Interfaces without such a ' +
      'setting take 1 in (speed / 1,000,000), at least 1 in 100.',
  ),
  'sampling.bps_ratio': optional(
    rate,
    '1000000',
    'Sampling rate of all other interfaces of known speed: 1 in (speed / this); 0 takes `sampling` for them all.',
  ),
  'sampling.app.': family(
    rate,
    'application',
    'sampling.app.web = 100',
    'Sampling rate of the operations of an application (`json { }`) and of those whose name begins with this one and a dot.',
  ),
  polling: setting(
    seconds,
    '30',
    'Seconds between the counter samples of an interface and of the host; 0 sends none.',
    {
      also: ['counterPollingInterval'],
    },
  ),
  'polling.': family(
    seconds,
    'name',
    'polling.web = 20',
    'Polling interval for other programs that read hsflowd.auto.',
  ),
  'polling.app.': family(
    seconds,
    'application',
    'polling.app.web = 20',
    'Seconds between the counters made for an application that keeps none by itself.',
  ),
  agentIP: optional(
    kind.address(),
    '192.0.2.1',
    'The agent address, as collectors see it. It need not be a local one.',
  ),
  agent: optional(
    device,
    'eth0',
    'Choose the agent address among those of this interface (name or alias) if it has any.',
  ),
  'agent.cidr': several(
    kind.cidr(),
    '192.0.2.0/24',
    'Prefer agent addresses in this block, or avoid them when it starts with !. May be repeated: the block named first counts most.',
  ),
  subAgentId: setting(
    kind.int(0, 199_999),
    '100000',
    'Tells the datagrams of several agents with the same address apart.',
  ),
  uuid: optional(
    kind.uuid(),
    '00112233-4455-6677-8899-aabbccddeeff',
    "UUID of the host; else the machine's own.",
  ),
  headerBytes: setting(
    kind.int(0, 256),
    '128',
    'Octets of each sampled packet that are sent, counted from its link header.',
  ),
  innerHeader: setting(
    kind.onOff(),
    'off',
    'Tell where the inner header of tunnelled packets begins in the sampled header (1027, 1028), and their virtual network ' +
      '(1029, 1030): VXLAN, Geneve, GRE, IP in IP. nfdump 1.7 loses samples with 1030.',
    { ours: true },
  ),
  datagramBytes: setting(kind.int(200, 8192), '1400', 'Largest UDP payload that is sent, octets.'),
  flush: setting(
    kind.int(1, 1000),
    '250',
    'Milliseconds that a sample waits at most for others to share its datagram.',
    {
      ours: true,
    },
  ),
  watch: setting(kind.onOff(), 'off', 'Take this file again, as `weir reload` does, whenever it changes.', {
    ours: true,
  }),
  budget: optional(
    kind.int(1),
    '20000',
    'Packet samples per second of the whole agent. Above it the samplers that weir has placed take fewer, in steps of ' +
      'two, and more again when there is room.',
    {
      ours: true,
    },
  ),
  refreshAdaptors: setting(kind.int(60, 3600), '180', 'Seconds between searches for interfaces.', {
    inactive: KERNEL_EVENTS,
  }),
  checkAdaptors: setting(kind.int(1, 3600), '10', 'Seconds between checks of known interfaces.', {
    inactive: KERNEL_EVENTS,
  }),
  refreshVMs: setting(
    kind.int(60, 3600),
    '60',
    'Seconds between searches for containers and virtual machines.',
  ),
  forgetVMs: setting(
    kind.int(60),
    '180',
    'Seconds after which a container or virtual machine that is gone is forgotten.',
  ),
  modules: setting(path, '/etc/hsflowd/modules', 'Folder of loadable modules.', {
    inactive: 'weir has no loadable modules',
  }),

  collector: blocks(
    {
      ip: optional(kind.host(), '192.0.2.10', 'Address or host name. Required.'),
      udpport: setting(kind.int(1, 65535), '6343', 'UDP port.'),
      dev: optional(device, 'mgmt', 'Interface or VRF to send through.'),
      namespace: optional(
        kind.word('a network namespace'),
        'mgmt',
        'Network namespace to send from: a name under /var/run/netns, or a path.',
      ),
      name: optional(kind.word('a name'), 'main', 'What messages and status call it; else `ip:udpport`.', {
        ours: true,
      }),
      source: optional(
        kind.address(),
        '192.0.2.1',
        'Address to send its datagrams from; else the kernel chooses.',
        {
          ours: true,
        },
      ),
      vrf: optional(device, 'mgmt', 'VRF to send through; the same as `dev`, by its other name.', {
        ours: true,
      }),
      send: optional(
        kind.someOf('flows', 'counters', 'drops'),
        'flows,counters',
        'Classes of samples it gets; else all. Figures of the agent (send in metrics) are of no class: each collector gets them.',
        {
          ours: true,
        },
      ),
      separate: setting(kind.onOff(), 'off', 'Never mix classes of samples in one datagram.', {
        ours: true,
      }),
      'internal-interface': setting(
        kind.int(0),
        '0x3fffffff',
        'Interface number that stands for the device itself.',
        {
          ours: true,
        },
      ),
      'drop-codes': setting(
        kind.oneOf('registered', 'hsflowd'),
        'registered',
        'Numbers of the discard reasons dev_hdr and tc_egress: those of the registry (332, 366), or those that hsflowd sends (33, 36).',
        {
          ours: true,
        },
      ),
    },
    'Where datagrams are sent. Each block adds one; every collector gets all samples unless it says otherwise.',
  ),

  psample: block(
    {
      group: setting(
        kind.int(1, 32),
        '1',
        'PSAMPLE group of ingress samples; egress samples come on the next group.',
      ),
      ingress: setting(kind.onOff(), 'on', 'Take samples of packets that enter a port.'),
      egress: setting(kind.onOff(), 'off', 'Take samples of packets that leave a port.'),
      tunnel: setting(
        kind.onOff(),
        'off',
        'Send the outer headers (1023 to 1026) and the network identifier (1029, 1030) of packets that have come through a ' +
          'tunnel or will go into one. nfdump 1.7 loses samples with these records.',
        { ours: true },
      ),
    },
    'Takes packet samples from the kernel module psample. Something has to feed it: `dent { }`, a switch driver, Open vSwitch, VPP.',
    { again: 'restart' },
  ),
  dent: block(
    {
      switchport: setting(kind.regex(), swp, 'Interfaces to put samplers on.'),
      sw: setting(kind.onOff(), 'off', 'on: sample in the kernel; off: only in hardware (skip_sw).'),
    },
    'Puts samplers (tc matchall) on switch ports and hands their samples to `psample { }`, which has to be there too.',
    { also: ['tc'] },
  ),
  pcap: blocks(
    {
      dev: optional(device, 'eth0', 'Exactly this interface, of whatever kind.'),
      'dev.pattern': optional(kind.regex(), '^(eth|ens|enp)', 'Interfaces whose name matches.'),
      speed: optional(kind.speedRange(), '1G-', 'Interfaces of this speed.'),
      sampling: optional(rate, '1000', 'Sampling rate; else by speed as for the whole agent.'),
      promisc: setting(kind.onOff(), 'off', 'Put the interface into promiscuous mode.'),
      vport: optional(
        kind.onOff(),
        'on',
        'off: leave out the counters of the ports of a bridge that is sampled, if they are not sampled themselves.',
      ),
      dynamic: optional(kind.onOff(), 'on', 'Sample interfaces of pods as they come.', {
        inactive: NO_PODS,
      }),
    },
    'Samples packets on interfaces of this host, without hardware. Each block adds a rule; the last one that matches an interface ' +
      'decides. What `dev` names is sampled in any case. Of the others no packet is sampled twice: members, not the bond; ports, ' +
      'not the bridge; the link below, not the VLAN, unless `dev` names the one above. Without `dev` and `dev.pattern` only ' +
      'hardware, bonds, bridges and VLANs are looked at. `weir explain` tells why for each interface.',
    { also: ['epcap'] },
  ),
  ebpf: block(
    {
      transit: setting(
        kind.onOff(),
        'on',
        'Follow sampled packets that pass through: output interface, depth of its queue, transit delay, or why they were ' +
          'dropped. bpf/README.md tells what can be followed.',
      ),
    },
    'How `pcap { }` samples where the kernel allows BPF.',
    { ours: true },
  ),

  'dns-sd': block(
    {
      domain: optional(
        kind.word('a domain'),
        '.example.com',
        'Domain that follows `_sflow._udp`; else those of the resolver.',
        {
          also: ['DNSSD_domain'],
        },
      ),
    },
    'Takes the collectors from the SRV records of `_sflow._udp`, and settings from its TXT record. They take the place of ' +
      'the collectors, sampling, polling and headerBytes of this file.',
  ),
  control: block(
    {
      group: optional(
        kind.word('a group'),
        'netops',
        'Group whose members may use the control socket (`weir status`, `weir top`), by name or number; else `weir`, if there is such a group. Taken when the agent starts.',
      ),
    },
    'The control socket, at which the running agent answers questions about itself.',
    { ours: true },
  ),
  metrics: block(
    {
      listen: optional(
        kind.listen(),
        '127.0.0.1:9143',
        'Where the figures of the agent can be read as OpenMetrics, at /metrics: address and port, or a Unix socket.',
      ),
      remote: setting(kind.onOff(), 'off', 'Allow an address that other hosts can reach.'),
      send: setting(
        kind.onOff(),
        'off',
        'Send them to the collectors, too, whatever classes those get, as rtmetric samples, each time the host is polled.',
      ),
    },
    'Figures of the agent itself: what it sampled, sent and lost, and what it costs.',
    { ours: true },
  ),
  web: block(
    {
      listen: optional(
        kind.listen(),
        '127.0.0.1:8008',
        'Where a page shows flows, drops, queues and interfaces, live and read-only: address and port, or a Unix socket.',
      ),
      token: optional(
        kind.word('a token'),
        '9b1f2c7e4d8a4f60',
        'What has to be shown to see it, at least 16 characters: open /?token=TOKEN once. Needed for an address that other hosts can reach.',
      ),
    },
    'A page to look at. It costs nothing while nobody does.',
    { ours: true },
  ),
  dropmon: block(
    {
      source: setting(
        kind.oneOf('auto', 'ebpf', 'drop_monitor'),
        'auto',
        'Where drops are seen. ebpf: by a program at the trace points of the kernel, which sees those of its own network namespace, or of all in the first one. drop_monitor: by the drop monitor, to which alone start, force, sw_passive, hw_passive, max and max_trip matter. auto: ebpf where the kernel has it and allows it, unless start = off or drops of others are asked for.',
        { ours: true },
      ),
      start: setting(kind.onOff(), 'on', 'Start the drop monitor; off: only listen to what others started.'),
      force: setting(
        kind.onOff(),
        'on',
        'Take the monitor over when something else has it on without packets. What was is put back at the end.',
      ),
      sw: setting(kind.onOff(), 'on', 'Drops in the kernel.'),
      hw: setting(kind.onOff(), 'on', 'Drops in hardware.'),
      rn: setting(
        kind.onOff(),
        'on',
        "Use the kernel's reasons; off: the function that dropped the packet decides.",
      ),
      host: setting(
        kind.onOff(),
        'on',
        "Report what this host's own sockets and protocols refuse too: closed ports, TCP's checks, full socket buffers.",
        { ours: true },
      ),
      hw_unknown: setting(kind.onOff(), 'off', 'Report hardware traps without a known reason too.'),
      sw_passive: setting(kind.onOff(), 'off', 'Report kernel drops that others have switched on.'),
      hw_passive: setting(kind.onOff(), 'off', 'Report hardware drops that others have switched on.'),
      hide: optional(kind.regex(), '^tcp_v4_rcv', 'Leave out drops whose trap, function or reason matches.'),
      limit: setting(
        kind.int(1, 10_000),
        '100',
        'Drops reported per second at most, shared among reasons and interfaces. The others are counted.',
      ),
      max: setting(
        kind.int(1),
        '100000',
        'Drops per second above which the monitor rests for half a minute.',
      ),
      max_trip: setting(kind.int(1), '2', 'For how many seconds in a row.'),
      group: optional(kind.int(0), '1', 'Ignored.', { inactive: 'there is one group only' }),
      hw_function: optional(kind.onOff(), 'off', 'Ignored.', { inactive: 'hsflowd ignores it too' }),
    },
    'Reports dropped packets with their reasons.',
    { again: 'restart' },
  ),
  nflog: block(
    {
      group: optional(kind.int(1, 32), '5', 'NFLOG group.'),
      probability: optional(kind.fraction(), '0.0025', 'Probability of the firewall rule that feeds it.'),
    },
    'Takes packet samples from firewall rules with an NFLOG target (nftables: `log group`). What the rule does not thin out ' +
      'is thinned to `sampling`.',
  ),
  ulog: block(
    {
      group: setting(kind.int(1, 32), '1', 'ULOG group.'),
      probability: optional(kind.fraction(), '0.0025', 'Probability of the firewall rule that feeds it.'),
    },
    'Takes packet samples from firewall rules with a ULOG target.',
    { inactive: 'Linux has had no ULOG since 3.17' },
  ),
  tcp: block(
    {
      tunnel: setting(kind.onOff(), 'off', 'Look for it in IP-in-IP and VXLAN, too.'),
      udp: setting(kind.onOff(), 'off', 'Look up UDP sockets too.', {
        inactive: 'a UDP socket has none of this',
      }),
      dump: setting(kind.onOff(), 'off', 'Search by dumping all sockets.', {
        inactive: 'sockets are looked up by their addresses',
      }),
    },
    'Adds round-trip time, loss and window of the TCP connection to the samples of packets that this host sends or receives.',
  ),
  json: block(
    {
      udpport: optional(port, '36343', 'UDP port on the loopback addresses; 0 for none.', {
        also: ['jsonPort'],
      }),
      fifo: optional(path, '/run/sflow.fifo', 'Named pipe to read.', { also: ['jsonFIFO'] }),
    },
    'Takes operations, counters and metrics that applications of this host tell as JSON.',
  ),
  nlroute: block(
    {
      limit: setting(kind.int(0, 500), '50', 'Requests per second.'),
      link: setting(kind.onOff(), 'on', 'Read link attributes.'),
      addr: setting(kind.onOff(), 'on', 'Read addresses.'),
      setIfAlias: setting(kind.onOff(), 'on', "Report an interface's alias."),
    },
    'Reads interface attributes by rtnetlink.',
    { again: 'restart', inactive: 'weir always reads interfaces by rtnetlink' },
  ),
  systemd: block(
    {
      refreshVMs: optional(
        kind.int(10, 3600),
        '60',
        'Seconds between searches for services; else the top-level value.',
      ),
      dropPriv: setting(kind.onOff(), 'off', 'Give up privileges where possible.', {
        inactive: 'weir gives up by itself what it does not need',
      }),
      markTraffic: setting(kind.onOff(), 'off', 'Add the service to the packet samples it causes.', {
        inactive: NO_MARKS,
      }),
      cgroup_procs: optional(
        path,
        '/sys/fs/cgroup/%s/cgroup.procs',
        "Path of a unit's list of processes, %s being its control group; else that of the group itself.",
      ),
      cgroup_acct: optional(path, '/sys/fs/cgroup/%s', 'Ignored.', {
        inactive: 'hsflowd ignores it too; weir finds control groups where they are mounted',
      }),
      socket: optional(path, '/run/dbus/system_bus_socket', 'Socket of the message bus that systemd is on.', {
        ours: true,
      }),
    },
    'Reports counters of systemd services, asked for over D-Bus.',
  ),
  docker: block(containers, 'Reports counters of Docker containers.'),
  containerd: block(
    {
      refreshVMs: { ...containers.refreshVMs, ours: true },
      forgetVMs: containers.forgetVMs,
      hostname: containers.hostname,
      markTraffic: containers.markTraffic,
      socket: { ...containers.socket, example: '/run/containerd/containerd.sock' },
    },
    'Reports counters of containerd containers, those of all its namespaces.',
  ),
  k8s: block(
    {
      markTraffic: setting(
        kind.onOff(),
        'off',
        'Tell of the pods that a sampled packet comes from and goes to, by their addresses.',
      ),
      eof: setting(kind.onOff(), 'off', 'Go on without the helper program.', {
        inactive: 'weir asks the container runtime itself',
      }),
      setIfAlias: setting(kind.onOff(), 'on', 'Report pod names as interface aliases.', {
        inactive: 'no structure has an alias; setIfName sets the name',
      }),
      setIfName: setting(kind.onOff(), 'on', 'Report pod names as interface names.'),
      unixsock: optional(
        path,
        '/run/containerd/containerd.sock',
        'Socket of the container runtime (CRI); else the first there is of containerd, CRI-O, k3s and cri-dockerd.',
      ),
      refreshVMs: { ...containers.refreshVMs, ours: true },
      forgetVMs: { ...containers.forgetVMs, ours: true },
    },
    'Reports counters of Kubernetes pods.',
    { again: 'restart' },
  ),
  kvm: block(
    {
      refreshVMs: containers.refreshVMs,
      forgetVMs: containers.forgetVMs,
      socket: { ...containers.socket, example: '/run/libvirt/libvirt-sock-ro' },
      uri: setting(kind.word('a libvirt URI'), 'qemu:///system', 'Driver of libvirt to ask.', { ours: true }),
    },
    'Reports counters of virtual machines (libvirt).',
  ),
  dbus: block({}, 'Offers status on D-Bus.', { inactive: 'weir has no D-Bus interface' }),
  ovs: block({}, "Configures Open vSwitch's own sFlow agent.", {
    inactive: 'Open vSwitch is not configured by weir yet',
  }),
  nvml: block({}, "Reports counters of NVIDIA GPUs, where NVIDIA's library libnvidia-ml is installed."),
  counters: block(
    {
      interfaces: optional(
        kind.regex(),
        '^(eth|swp)[0-9]+$',
        'Interfaces whose counters are sent, up or down. Without it: the ports of a switch, and others from the first ' +
          'time that they are up; not loopback.',
      ),
      modules: setting(
        kind.int(0, 86_400),
        '300',
        'Seconds between readings of a pluggable module (temperature, power of each lane); 0 reads none.',
      ),
      pfc: setting(kind.onOff(), 'on', 'Send what priority flow control counts, where a driver offers it.'),
      queues: setting(
        kind.onOff(),
        'off',
        "Send what queueing disciplines count, in a structure of weir's own that other collectors step over. Its enterprise " +
          'number is 32473, which RFC 5612 reserves for documentation: the number will change when weir has one of its own.',
      ),
    },
    'What is sent of interfaces besides their samples.',
    { ours: true },
  ),
  vpp: block(
    {
      ifOffset: setting(kind.int(0), '1000000000', 'Added to VPP interface numbers.'),
      osIndex: setting(kind.onOff(), 'on', 'Use the numbers of the Linux interfaces where there are any.'),
    },
    'Reports interfaces and samples of VPP.',
    { again: 'restart', inactive: vendor('VPP') },
  ),
  xen: block(
    {
      'update.dominfo': setting(kind.onOff(), 'off', 'Refresh domain information at each poll.'),
      dsk: setting(kind.onOff(), 'on', 'Report disk counters.'),
      switchport: optional(kind.regex(), '^vif', 'Interfaces to report.'),
      vbd: optional(path, '/sys/bus/xen-backend/devices', 'Folder of the block devices.'),
      refreshVMs: containers.refreshVMs,
      forgetVMs: containers.forgetVMs,
    },
    'Reports counters of Xen domains.',
    { inactive: vendor('Xen') },
  ),
  sonic: block(
    {
      switchport: optional(kind.regex(), '^Ethernet', 'Switch ports.'),
      unixsock: setting(kind.onOff(), 'on', 'Reach redis by its Unix socket.'),
      dbconfig: optional(
        path,
        '/var/run/redis/sonic-db/database_config.json',
        'Database configuration file.',
      ),
      waitReady: setting(kind.int(0), '180', 'Seconds to wait for the switch to be ready.'),
      suppressOther: setting(kind.onOff(), 'on', 'Report switch ports only.'),
      setIfAlias: setting(kind.onOff(), 'off', "Report SONiC's interface aliases."),
      setIfName: setting(kind.onOff(), 'off', "Report SONiC's interface names."),
    },
    'Takes its settings and counters from SONiC.',
    { again: 'restart', inactive: vendor('SONiC') },
  ),
  cumulus: block(
    { switchport: setting(kind.regex(), swp, 'Switch ports.') },
    'Programs the sampler of Cumulus Linux.',
    {
      inactive: vendor('Cumulus portsamp'),
    },
  ),
  opx: block(
    {
      udpport: setting(port, '20001', 'UDP port that samples come on.'),
      switchport: optional(kind.regex(), '^e[0-9]', 'Switch ports.'),
      port: blocks(
        { dev: optional(device, 'e101-001-0', 'Interface.') },
        'A port to sample. Each block adds one.',
      ),
    },
    'Programs the sampler of OPX switches.',
    { also: ['os10'], inactive: vendor('OPX') },
  ),
  eapi: block({}, 'Takes its settings from Arista EOS.', { inactive: vendor('Arista EOS') }),

  DNSSD: optional(kind.onOff(), 'on', 'Enables DNS-SD.', {
    deprecated: 'write dns-sd { }, or leave it out for off',
  }),
  DNSSD_domain: optional(kind.word('a domain'), '.example.com', 'Domain for DNS-SD.', {
    deprecated: 'write dns-sd { domain = … }',
  }),
  samplingDirection: optional(kind.oneOf('in', 'out', 'both'), 'both', '', {
    deprecated: 'it is ignored, as hsflowd does',
  }),
  loopback: optional(kind.onOff(), 'off', '', { deprecated: 'it is ignored, as hsflowd does' }),
  ulogGroup: optional(kind.int(1), '1', 'ULOG group.', { deprecated: 'write ulog { group = … }' }),
  ulogProbability: optional(kind.fraction(), '0.01', 'ULOG probability.', {
    deprecated: 'write ulog { probability = … }',
  }),
  nflogGroup: optional(kind.int(1), '5', 'NFLOG group.', { deprecated: 'write nflog { group = … }' }),
  nflogProbability: optional(kind.fraction(), '0.01', 'NFLOG probability.', {
    deprecated: 'write nflog { probability = … }',
  }),
  jsonPort: optional(kind.int(1025, 65535), '36343', 'JSON port.', {
    deprecated: 'write json { udpport = … }',
  }),
  jsonFIFO: optional(path, '/run/sflow.fifo', 'JSON named pipe.', { deprecated: 'write json { fifo = … }' }),
  'xen.update.dominfo': optional(kind.onOff(), 'off', 'Xen.', {
    deprecated: 'write xen { update.dominfo = … }',
  }),
  'xen.dsk': optional(kind.onOff(), 'on', 'Xen.', { deprecated: 'write xen { dsk = … }' }),
} as const satisfies Entries

/** The values of a whole file. */
export type Values = ValuesOf<typeof settings>

/** An entry of a block, found by a name as it was written. */
export interface Found {
  /** Its name in the table. */
  readonly name: string
  // biome-ignore lint/suspicious/noExplicitAny: the table holds settings of every type
  readonly entry: Setting<any> | Block<any, boolean>
  /** For a family, the part after the prefix, as written; else empty. */
  readonly suffix: string
}

/**
 * Finds an entry by name or other name, in any letter case. A name that nothing has may belong to the family with
 * the longest prefix; after the word before the first dot, families mind letter case.
 */
export function findEntry(entries: Entries, written: string): Found | undefined {
  const lower = written.toLowerCase()
  let familyName: string | undefined
  for (const [name, entry] of Object.entries(entries)) {
    if (entry.form === 'setting' && entry.suffix !== undefined) {
      const word = name.indexOf('.')
      const fits = lower.startsWith(name.slice(0, word)) && written.slice(word).startsWith(name.slice(word))
      if (fits && written.length > name.length && name.length > (familyName?.length ?? 0)) familyName = name
    } else if (name.toLowerCase() === lower || entry.also?.some(other => other.toLowerCase() === lower)) {
      return { name, entry, suffix: '' }
    }
  }
  if (familyName === undefined) return undefined
  return { name: familyName, entry: entries[familyName]!, suffix: written.slice(familyName.length) }
}

/** Every name that an entry of the block can be written with, families left out. */
export function namesIn(entries: Entries): string[] {
  return Object.entries(entries)
    .filter(([, entry]) => entry.form === 'block' || entry.suffix === undefined)
    .flatMap(([name, entry]) => [name, ...(entry.also ?? [])])
}

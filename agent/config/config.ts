/**
 * The configuration after reading: frozen, every value present. agent.ts hands each part its slice; no part
 * knows the file's language.
 */

export interface Config {
  /** The file it came from, for messages. */
  readonly file: string
  /**
   * The line of each thing the file sets, by its name in full: `sampling.10G`, `psample.group`, `collector[0].ip`; 0
   * for what DNS sets.
   * What is not here has its default.
   */
  readonly lines: ReadonlyMap<string, number>
  /** Take a changed file without being asked. */
  readonly watch: boolean
  readonly sampling: SamplingConfig
  readonly polling: PollingConfig
  /** All of `sampling.NAME` and `polling.NAME` for the programs that read hsflowd.auto, the last declared first. */
  readonly external: readonly ExternalConfig[]
  readonly agent: AgentAddressConfig
  /** sFlow sub-agent id, 0 to 199,999. */
  readonly subAgentId: number
  /** Host UUID (32 lower-case hex digits with dashes) if the file sets one. */
  readonly uuid: string | undefined
  /** Octets of a packet to export at most, 0 to 256. */
  readonly headerBytes: number
  /** Tell where the inner header of tunnelled packets is. */
  readonly innerHeader: boolean
  /** UDP payload bytes of a datagram at most, 200 to 8192. */
  readonly datagramBytes: number
  /** Longest time a sample waits in the open datagram, milliseconds, 1 to 1000. */
  readonly flushMs: number
  /** Packet samples per second above which sampling rates are raised; undefined sets no limit. */
  readonly budget: number | undefined
  readonly collectors: readonly CollectorConfig[]
  /** Present when collectors and settings are to be looked up in DNS. */
  readonly discovery: DiscoveryConfig | undefined
  /** Present when the block is. */
  readonly json: JsonConfig | undefined
  /** Present when the block is. */
  readonly psample: PsampleConfig | undefined
  /** Present when the block is, and names a group. */
  readonly nflog: NflogConfig | undefined
  readonly tc: TcConfig | undefined
  /** In the order of declaration; the last one that matches an interface wins. pcap and epcap blocks alike. */
  readonly pcap: readonly PcapConfig[]
  /** Follow packets that pcap blocks sample through the kernel, for queue depth and transit delay. */
  readonly transit: boolean
  /** Add the state of TCP connections to samples; present when the block is. */
  readonly tcp: TcpInfoConfig | undefined
  /** Present when the block is. */
  readonly dropmon: DropmonConfig | undefined
  /** Name or number of the group that may use the control socket; undefined: `weir`, if there is such a group. */
  readonly controlGroup: string | undefined
  /** Present when the block is. */
  readonly metrics: MetricsConfig | undefined
  /** Present when the block is. */
  readonly web: WebConfig | undefined
  readonly virtual: VirtualConfig
  readonly counters: CountersConfig
  /** Report the GPUs that NVIDIA's library knows. */
  readonly nvml: boolean
}

export interface CountersConfig {
  /** Interfaces to poll, up or down; undefined takes switch ports, and others once they are up. */
  readonly interfaces: RegExp | undefined
  /** How old what is read of a pluggable module may become; 0 reads none. */
  readonly moduleSeconds: number
  /** Tell of priority flow control, where a driver has it. */
  readonly pfc: boolean
  /** Tell of queueing disciplines, in a structure of weir's own. */
  readonly queues: boolean
}

export type ListenAddress =
  | { readonly path: string }
  /** Numeric address. */
  | { readonly host: string; readonly port: number }

export interface WebConfig {
  /** Where the page is; undefined: nowhere. */
  readonly listen: ListenAddress | undefined
  /** What has to be shown to see it. */
  readonly token: string | undefined
}

export interface MetricsConfig {
  /** Where they can be read; undefined: nowhere. */
  readonly listen: ListenAddress | undefined
  /** Send them in the stream of samples, too. */
  readonly send: boolean
}

export interface SamplingConfig {
  /** `sampling = N`: used when the speed is not known. 0 turns sampling off. */
  readonly rate: number
  /** `sampling.10G = N`: key is the text after the dot, as written. */
  readonly bySpeed: ReadonlyMap<string, number>
  /** `sampling.bps_ratio`; undefined when not set, 0 turns speed scaling off. */
  readonly bpsRatio: number | undefined
  /** `sampling.app.NAME = N`: key is NAME. */
  readonly byApplication: ReadonlyMap<string, number>
}

export interface PollingConfig {
  /** Seconds between counter samples of a data source; 0 sends none. */
  readonly seconds: number
  readonly byApplication: ReadonlyMap<string, number>
}

export interface ExternalConfig {
  /** What follows the first dot, as written: `10G`, `http`, `app.web`. */
  readonly name: string
  readonly sampling: number | undefined
  readonly polling: number | undefined
}

export interface AgentAddressConfig {
  /** `agentIP`: numeric address; need not be a local one. */
  readonly address: string | undefined
  /** `agent`: prefer the addresses of this device (name, else alias). */
  readonly device: string | undefined
  /** `agent.cidr`, in the order of declaration. */
  readonly cidrs: readonly CidrRule[]
}

export interface CidrRule {
  /** Numeric address, masked. */
  readonly address: string
  readonly bits: number
  readonly exclude: boolean
}

export interface DiscoveryConfig {
  /** What follows `_sflow._udp`, as written; undefined takes the resolver's search list. */
  readonly domain: string | undefined
}

export interface CollectorConfig {
  /** Name or numeric address, as written. */
  readonly host: string
  readonly port: number
  /** Our own key: a name for messages and status; else made of address, port and way. No two have the same. */
  readonly name: string
  /** Interface or VRF to send through. */
  readonly device: string | undefined
  /** Network namespace (name under /var/run/netns, or a path). */
  readonly namespace: string | undefined
  /** Numeric address to send from. */
  readonly source: string | undefined
  /** Classes of samples that it gets. */
  readonly send: readonly SampleClass[]
  /** No datagram holds samples of two classes. */
  readonly separate: boolean
  /** Interface number that stands for the device itself. */
  readonly internalInterface: number
  /** `hsflowd`: discard reasons 332 and 366 go out as 33 and 36. */
  readonly dropCodes: 'registered' | 'hsflowd'
}

export type SampleClass = 'flows' | 'counters' | 'drops'

export interface JsonConfig {
  /** UDP port on the loopback addresses; undefined or 0 for none. */
  readonly port: number | undefined
  /** Named pipe. */
  readonly fifo: string | undefined
}

export interface PsampleConfig {
  /** PSAMPLE group of ingress samples; egress samples come on `group + 1`. */
  readonly group: number
  readonly ingress: boolean
  readonly egress: boolean
  /** Send what is known of tunnels. */
  readonly tunnel: boolean
}

export interface NflogConfig {
  readonly group: number
  /** Of the rule's statistic match; undefined: the rule logs every packet. */
  readonly probability: number | undefined
}

export interface TcConfig {
  /** Interfaces to put samplers on. */
  readonly switchport: RegExp
  /** True when the file names `switchport` itself: then any kind of interface may match. */
  readonly switchportGiven: boolean
  /** `sw = on`: the software path samples too; off asks for hardware offload (skip_sw). */
  readonly sw: boolean
}

export interface PcapConfig {
  /** Exactly this device; it is sampled whatever kind it is. */
  readonly device: string | undefined
  readonly devicePattern: RegExp | undefined
  /** Speed range in bit/s, inclusive; `max` is Infinity for an open range. */
  readonly speed: { readonly min: number; readonly max: number } | undefined
  /** 1 in N; undefined takes the rate by speed. */
  readonly sampling: number | undefined
  readonly promisc: boolean
  readonly vport: boolean | undefined
}

export type DropSourceChoice = 'auto' | 'ebpf' | 'drop_monitor'

export interface TcpInfoConfig {
  /** Look into tunnels. */
  readonly tunnel: boolean
}

export interface DropmonConfig {
  /** Where drops are seen: `auto` is eBPF where that can be, else the drop monitor. */
  readonly source: DropSourceChoice
  /** Start the drop monitor; else only listen. */
  readonly start: boolean
  readonly force: boolean
  readonly software: boolean
  readonly hardware: boolean
  /** Use the kernel's reasons. */
  readonly reasonNames: boolean
  /** Report traps that neither they nor their group are known. */
  readonly unknownTraps: boolean
  /** Report drops that others have switched on. */
  readonly softwarePassive: boolean
  readonly hardwarePassive: boolean
  /** Report what this host's own sockets and protocols refuse. */
  readonly host: boolean
  readonly hide: RegExp | undefined
  /** Notifications per second at most, 1 to 10,000. */
  readonly limit: number
  /** More alerts per second, for so many seconds in a row, and the monitor rests. */
  readonly mostPerSecond: number
  readonly mostSeconds: number
}

/** What else is reported besides the host: each is present when its block is. */
export interface VirtualConfig {
  readonly systemd: SystemdConfig | undefined
  readonly docker: ContainersConfig | undefined
  readonly containerd: ContainersConfig | undefined
  readonly k8s: KubernetesConfig | undefined
  readonly kvm: LibvirtConfig | undefined
}

export interface SearchConfig {
  /** Seconds between searches. */
  readonly refreshSeconds: number
  /** Seconds after which what is gone is forgotten. */
  readonly forgetSeconds: number
  /** Unix socket; undefined takes the usual one. */
  readonly socket: string | undefined
}

export interface SystemdConfig extends SearchConfig {
  /** Path of the list of a unit's processes, `%s` for its control group; undefined takes that of the group itself. */
  readonly processes: string | undefined
}

export interface ContainersConfig extends SearchConfig {
  /** Call a container by its host name. */
  readonly hostname: boolean
  /** Tell of the containers that a sampled packet comes from and goes to. */
  readonly markTraffic: boolean
}

export interface KubernetesConfig extends SearchConfig {
  /** Call the interfaces of pods by the names of the pods. */
  readonly setIfName: boolean
  /** Tell of the pods that a sampled packet comes from and goes to. */
  readonly markTraffic: boolean
}

export interface LibvirtConfig extends SearchConfig {
  /** Driver to ask, as `qemu:///system`. */
  readonly uri: string
}

/** Counters of virtual machines, containers and Java virtual machines. */

import { added, c32, c64, oneOf, text, u32, u64, type ValueOf } from '../../struct.ts'
import { domainState } from '../enumerations.ts'
import { counterRecord } from '../record.ts'
import { hostNetIo } from './host.ts'

const HOST = 'host structures (2010)'
const JVM = 'Java virtual machine structures'

export const virtNode = counterRecord(0, 2100, 'virt_node', HOST, {
  mhz: u32('clock of a CPU', 'MHz'),
  cpus: u32('active CPUs'),
  memory: u64('memory', 'bytes'),
  memory_free: u64('memory not given to domains', 'bytes'),
  num_domains: u32('active domains'),
})
export type VirtNode = ValueOf<typeof virtNode>

export const virtCpu = counterRecord(0, 2101, 'virt_cpu', HOST, {
  state: oneOf(domainState, 'state of the domain'),
  cpuTime: c32('CPU time used', 'ms'),
  nrVirtCpu: u32('virtual CPUs'),
})
export type VirtCpu = ValueOf<typeof virtCpu>

export const virtMemory = counterRecord(0, 2102, 'virt_memory', HOST, {
  memory: u64('memory in use', 'bytes'),
  maxMemory: u64('memory allowed', 'bytes'),
})
export type VirtMemory = ValueOf<typeof virtMemory>

export const virtDiskIo = counterRecord(0, 2103, 'virt_disk_io', HOST, {
  capacity: u64('logical size', 'bytes'),
  allocation: u64('size in use', 'bytes'),
  available: u64('bytes left (document of 2010) or size of the backing image (later erratum)', 'bytes'),
  rd_req: c32('reads', 'operations'),
  rd_bytes: c64('bytes read', 'bytes'),
  wr_req: c32('writes', 'operations'),
  wr_bytes: c64('bytes written', 'bytes'),
  errs: c32('errors'),
})
export type VirtDiskIo = ValueOf<typeof virtDiskIo>

/** As host_net_io, seen from inside the domain. */
export const virtNetIo = counterRecord(0, 2104, 'virt_net_io', HOST, hostNetIo.fields)
export type VirtNetIo = ValueOf<typeof virtNetIo>

export const jvmRuntime = counterRecord(0, 2105, 'jvm_runtime', JVM, {
  vm_name: text('name of the virtual machine', 64),
  vm_vendor: text('vendor', 32),
  vm_version: text('version', 32),
})
export type JvmRuntime = ValueOf<typeof jvmRuntime>

export const jvmStatistics = counterRecord(0, 2106, 'jvm_statistics', `${JVM}, extended by the file counts`, {
  heap_initial: u64('heap at the start', 'bytes'),
  heap_used: u64('heap in use', 'bytes'),
  heap_committed: u64('heap committed', 'bytes'),
  heap_max: u64('greatest heap', 'bytes'),
  non_heap_initial: u64('other memory at the start', 'bytes'),
  non_heap_used: u64('other memory in use', 'bytes'),
  non_heap_committed: u64('other memory committed', 'bytes'),
  non_heap_max: u64('most other memory', 'bytes'),
  gc_count: c32('garbage collections'),
  gc_time: c32('time collecting garbage', 'ms'),
  classes_loaded: u32('classes loaded now', 'classes'),
  classes_total: c32('classes ever loaded', 'classes'),
  classes_unloaded: c32('classes unloaded', 'classes'),
  compilation_time: c32('time compiling', 'ms'),
  thread_num_live: u32('threads', 'threads'),
  thread_num_daemon: u32('daemon threads', 'threads'),
  thread_num_started: c32('threads ever started', 'threads'),
  fd_open_count: added(u32('open files', 'files')),
  fd_max_count: added(u32('most open files allowed', 'files')),
})
export type JvmStatistics = ValueOf<typeof jvmStatistics>

/** Applications that tell of themselves over UDP and a named pipe, all the way to the wire. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { KernelSocket } from '../../agent/kernel/native.ts'
import { addressFamily, internetAddress } from '../../agent/kernel/sockaddr.ts'
import { findRecord, type SampleValue } from '../../agent/wire/sflow/block.ts'
import { appOperations } from '../../agent/wire/sflow/counters/application.ts'
import { hostParent } from '../../agent/wire/sflow/counters/host.ts'
import { SFLOW_PORT } from '../../agent/wire/sflow/datagram.ts'
import { appOperation, extendedSocketIpv4 } from '../../agent/wire/sflow/flow/application.ts'
import { rtflow, rtmetric } from '../../agent/wire/sflow/samples.ts'
import {
  countersSamplesOf,
  flowSamplesOf,
  listen,
  makeLab,
  runWeir,
  startAgent,
  until,
} from '../support/lab.ts'

const PORT = 36343
const INTERNAL = 0x3fffffff

test('applications', async t => {
  const lab = makeLab(t)
  const { host, peer } = lab
  const fifo = join(lab.folder, 'fifo')
  execFileSync('mkfifo', [fifo])
  const collector = listen(t, peer.namespace, { address: peer.mgmt0.ipv4, port: SFLOW_PORT })
  const agent = startAgent(
    t,
    lab,
    `polling = 300 polling.app.made = 1
    sampling.app.every = 1 sampling.app.some = 10
    json { udpport = ${PORT} fifo = ${fifo} }
    collector { ip = ${peer.mgmt0.ipv4} }`,
  )
  await agent.line(/^applications are heard/)
  const ways = ['127.0.0.1', '::1'].map(address => {
    const target = internetAddress(address, PORT)!
    const socket = KernelSocket.open('messages', addressFamily(target), 2, 0, host.namespace)
    t.after(() => socket.close())
    socket.connect(target, 'connect')
    return socket
  })
  const send = async (message: unknown, way = 0) => {
    const text = typeof message === 'string' ? message : JSON.stringify(message)
    await ways[way]!.sendAsync(new TextEncoder().encode(text), 'send')
  }
  const operation = (app_name: string, more: object = {}) => ({
    flow_sample: { app_name, app_operation: { operation: 'get', status: 'not_found', uS: 10 }, ...more },
  })

  const socket4 = {
    protocol: 6,
    local_ip: '192.0.2.1',
    local_port: 1,
    remote_ip: '192.0.2.2',
    remote_port: 80,
  }
  await send(operation('every.one', { service_port: 80, sampling_rate: 3, extended_socket_ipv4: socket4 }), 1)
  await send(operation('every', { client: true }))
  // Another application on the same port has a data source of its own.
  await send(operation('every', { service_port: 80 }))
  const flows = () => flowSamplesOf(collector)
  const told = await until('three operations', () => flows().length >= 3 && flows())
  const bySource = new Map(told.map(sample => [sample.value.source_id.index, sample]))
  const [first, client, other] = [80, 150_000, 150_001].map(index => bySource.get(index)!)
  assert.deepEqual(
    [
      first!.value.sampling_rate,
      first!.value.sample_pool,
      first!.value.input.value,
      first!.value.output.value,
    ],
    [3, 3, 0, INTERNAL],
  )
  assert.equal(first!.value.source_id.type, 3)
  assert.deepEqual(findRecord(first!.records, extendedSocketIpv4), socket4)
  assert.deepEqual(findRecord(client!.records, appOperation), {
    application: 'every',
    operation: 'get',
    attributes: '',
    status_descr: '',
    req_bytes: 0n,
    resp_bytes: 0n,
    duration: 10,
    status: 8,
  })
  assert.deepEqual([client!.value.input.value, client!.value.output.value], [INTERNAL, 0])
  assert.equal(other!.value.sequence_number, 1)

  // 1 in 10 of 2000, within six standard deviations; the pool counts all of them.
  const many = 2000
  for (let i = 0; i < many; i++) await send(operation('some'))
  await send(operation('every', { sampling_rate: 7 }))
  await until('the last one', () => flows().some(({ value }) => value.sampling_rate === 7))
  const some = flows().filter(({ records }) => findRecord(records, appOperation)?.application === 'some')
  assert.ok(some.every(({ value }) => value.sampling_rate === 10))
  const deviation = Math.sqrt(many * 0.1 * 0.9)
  assert.ok(Math.abs(some.length - many / 10) < 6 * deviation, `${some.length} of ${many}`)
  assert.ok(some.at(-1)!.value.sample_pool > many / 2)

  // An application that keeps no counters gets those of its operations; one that does is believed.
  await send(operation('made', { sampling_rate: 5 }))
  await send({ counter_sample: { app_name: 'kept', app_operations: { success: 4 } } })
  const counters = await until('counters of both', () => {
    const found = countersSamplesOf(collector).flatMap(({ records }) => {
      const operations = findRecord(records, appOperations)
      return operations === undefined ? [] : [{ operations, parent: findRecord(records, hostParent) }]
    })
    const of = (name: string) => found.find(({ operations }) => operations.application === name)
    return of('made') && of('kept') && { made: of('made')!, kept: of('kept')! }
  })
  assert.equal(counters.made.operations.not_found, 5)
  assert.equal(counters.kept.operations.success, 4)
  assert.deepEqual(counters.kept.parent, { container_type: 2, container_index: 1 })

  writeFileSync(
    fifo,
    '{"rtmetric":{"load":{"type":"gaugeFloat","value":1.5}}}\n{"rtflow":{"datasource":"ds",',
  )
  writeFileSync(fifo, '"n":{"type":"int32","value":5}}} {"rtmetric":{"x":{"type":"gauge33","value":1}}}')
  const values = (sample: SampleValue['sample']) =>
    collector.arrivals
      .flatMap(({ datagram }) => datagram.samples)
      .flatMap(block => ('sample' in block && block.sample === sample ? [block.value] : []))
  await until('metrics and flows', () => values(rtmetric).length > 0 && values(rtflow).length > 0)
  assert.deepEqual(values(rtmetric)[0], {
    datasource: hostname(),
    metrics: [{ name: 'load', metric: { type: 5, value: 1.5 } }],
  })
  assert.deepEqual(values(rtflow)[0], {
    datasource: 'ds',
    sampling_rate: 1,
    sample_pool: 0,
    fields: [{ name: 'n', field: { type: 4, value: 5 } }],
  })

  await send('{"flow_sample":')
  await send(`"${'x'.repeat(11_000)}"`)
  await send(operation('every', { sampling_rate: 9 }))
  await until('what came behind', () => flows().some(({ value }) => value.sampling_rate === 9))
  await agent.line(/^message left out: /)
  const { exit, status } = await agent.stop()
  assert.equal(exit, 0)
  const { lost } = status
  assert.deepEqual(
    Object.fromEntries(Object.entries(lost).filter(([name]) => name.startsWith('applications/'))),
    { 'applications/malformed': 2, 'applications/message-too-long': 1 },
  )
})

test('a taken port: the status warns, and it is heard when the port is free', async t => {
  const lab = makeLab(t)
  const { namespace } = lab.host
  const address = internetAddress('127.0.0.1', PORT)!
  const other = KernelSocket.open('another', addressFamily(address), 2, 0, namespace)
  t.after(() => other.close())
  other.bind(address, 'bind')
  const control = join(lab.folder, 'control.sock')
  const settings = `json { udpport = ${PORT} } collector { ip = ${lab.peer.mgmt0.ipv4} }`
  const agent = startAgent(t, lab, settings, { args: ['--control', control] })
  await agent.line(/^running$/)
  const warning = /json \{ udpport = … \}/
  const status = async () => {
    const command = runWeir(t, [], ['status', '--socket', control])
    await command.ended
    return command.stdout
  }
  assert.match(await status(), warning)
  other.close()
  await agent.line(/^applications are heard at 127\.0\.0\.1 port 36343$/)
  assert.doesNotMatch(await status(), warning)
  const refusals = agent.log.filter(({ msg }) => /EADDRINUSE/.test(msg))
  assert.equal(refusals.length, 1, 'it is told once')
  assert.equal((await agent.stop()).exit, 0)
})

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { readMessage } from '../../agent/applications/message.ts'

const read = (value: unknown) => readMessage(JSON.stringify(value))

describe('messages of applications', () => {
  test('an operation with all that there is', () => {
    const { messages, problems } = read({
      flow_sample: {
        app_name: 'web',
        service_port: 8080,
        client: true,
        sampling_rate: 5,
        app_operation: {
          operation: 'cart.add',
          attributes: 'sku=7&n=2',
          status_descr: 'OK',
          status: 0,
          req_bytes: 43,
          resp_bytes: '18446744073709551615',
          uS: 1234,
        },
        app_parent_context: { application: 'shop', operation: 'buy', attributes: '' },
        app_initiator: { actor: 'alice' },
        app_target: { actor: 'bob' },
        extended_socket_ipv4: {
          protocol: 6,
          local_ip: '192.0.2.1',
          local_port: 40000,
          remote_ip: '192.0.2.2',
          remote_port: 8080,
        },
        extended_socket_ipv6: { protocol: 6, local_ip: '2001:db8::1', remote_ip: '2001:db8::2' },
      },
    })
    assert.deepEqual(problems, [])
    assert.deepEqual(messages, [
      {
        kind: 'operation',
        application: 'web',
        port: 8080,
        client: true,
        samplingRate: 5,
        operation: {
          operation: 'cart.add',
          attributes: 'sku=7&n=2',
          status_descr: 'OK',
          req_bytes: 43n,
          resp_bytes: 2n ** 64n - 1n,
          duration: 1234,
          status: 0,
        },
        parent: { application: 'shop', operation: 'buy', attributes: '' },
        initiator: { actor: 'alice' },
        target: { actor: 'bob' },
        socket4: {
          protocol: 6,
          local_ip: '192.0.2.1',
          remote_ip: '192.0.2.2',
          local_port: 40000,
          remote_port: 8080,
        },
        socket6: {
          protocol: 6,
          local_ip: '2001:db8::1',
          remote_ip: '2001:db8::2',
          local_port: 0,
          remote_port: 0,
        },
      },
    ])
  })

  test('counters: a missing counter is unknown, a missing gauge 0', () => {
    const { messages, problems } = read({
      counter_sample: {
        app_name: 'web',
        app_operations: { success: 7, not_found: 1 },
        app_resources: { user_time: 5, fd_open: 9 },
        app_workers: { workers_active: 3 },
      },
    })
    const unknown = 0xffffffff
    assert.deepEqual(problems, [])
    assert.deepEqual(messages, [
      {
        kind: 'counters',
        application: 'web',
        port: 0,
        operations: {
          success: 7,
          other: unknown,
          timeout: unknown,
          internal_error: unknown,
          bad_request: unknown,
          forbidden: unknown,
          too_large: unknown,
          not_implemented: unknown,
          not_found: 1,
          unavailable: unknown,
          unauthorized: unknown,
        },
        resources: {
          user_time: 5,
          system_time: unknown,
          mem_used: 0n,
          mem_max: 0n,
          fd_open: 9,
          fd_max: 0,
          conn_open: 0,
          conn_max: 0,
        },
        workers: {
          workers_active: 3,
          workers_idle: 0,
          workers_max: 0,
          req_delayed: unknown,
          req_dropped: unknown,
        },
      },
    ])
  })

  test('metrics and flows of every type', () => {
    const { messages, problems } = read({
      rtmetric: {
        datasource: 'ds1',
        s: { type: 'string', value: 'x' },
        c: { type: 'counter32', value: 4294967295 },
        c64: { type: 'counter64', value: '9007199254740993' },
        g: { type: 'gauge32', value: 0 },
        g64: { type: 'gauge64', value: 5 },
        f: { type: 'gaugeFloat', value: 1.5 },
        d: { type: 'gaugeDouble', value: -0.1 },
      },
      rtflow: {
        sampling_rate: 100,
        m: { type: 'mac', value: '02:00:00:00:00:0A' },
        i: { type: 'ip', value: '192.0.2.1' },
        i6: { type: 'ip6', value: '2001:db8::1' },
        n: { type: 'int32', value: 5 },
        n64: { type: 'int64', value: 6 },
        f: { type: 'float', value: 0.5 },
        d: { type: 'double', value: 2 },
      },
    })
    assert.deepEqual(problems, [])
    assert.deepEqual(messages, [
      {
        kind: 'metrics',
        source: 'ds1',
        metrics: [
          { name: 's', metric: { type: 0, value: 'x' } },
          { name: 'c', metric: { type: 1, value: 4294967295 } },
          { name: 'c64', metric: { type: 2, value: 9007199254740993n } },
          { name: 'g', metric: { type: 3, value: 0 } },
          { name: 'g64', metric: { type: 4, value: 5n } },
          { name: 'f', metric: { type: 5, value: 1.5 } },
          { name: 'd', metric: { type: 6, value: -0.1 } },
        ],
      },
      {
        kind: 'fields',
        source: undefined,
        samplingRate: 100,
        fields: [
          { name: 'm', field: { type: 1, value: '02:00:00:00:00:0a' } },
          { name: 'i', field: { type: 2, value: '192.0.2.1' } },
          { name: 'i6', field: { type: 3, value: '2001:db8::1' } },
          { name: 'n', field: { type: 4, value: 5 } },
          { name: 'n64', field: { type: 5, value: 6n } },
          { name: 'f', field: { type: 6, value: 0.5 } },
          { name: 'd', field: { type: 7, value: 2 } },
        ],
      },
    ])
  })

  const wrong: readonly [what: string, message: unknown, problem: RegExp][] = [
    ['a list', [], /^the message: expected an object$/],
    ['nothing', {}, /^an object without any part$/],
    ['another part', { flow: {} }, /^flow: expected one of flow_sample, counter_sample, rtmetric, rtflow$/],
    ['no name', { flow_sample: { app_operation: {} } }, /^flow_sample.app_name is missing$/],
    ['no operation', { flow_sample: { app_name: 'a' } }, /^flow_sample.app_operation is missing$/],
    [
      'a status that is none',
      { flow_sample: { app_name: 'a', app_operation: { status: 11 } } },
      /^flow_sample.app_operation.status: expected a number from 0 to 10, or its name, got 11$/,
    ],
    [
      'a negative size',
      { flow_sample: { app_name: 'a', app_operation: { req_bytes: -1 } } },
      /req_bytes: expected a whole number of 64 bits, got -1$/,
    ],
    [
      'an address of the other family',
      { flow_sample: { app_name: 'a', app_operation: {}, extended_socket_ipv4: { local_ip: '::1' } } },
      /extended_socket_ipv4.local_ip: expected an IPv4 address, got "::1"$/,
    ],
    ['no counters', { counter_sample: { app_name: 'a' } }, /^counter_sample.app_operations, .* missing$/],
    ['a metric of no type', { rtmetric: { a: { value: 1 } } }, /^rtmetric.a.type: expected one of string, /],
    ['a metric without a value', { rtmetric: { a: { type: 'gauge32' } } }, /^rtmetric.a.value is missing$/],
    [
      'a metric with a bad name',
      { rtmetric: { 'a b': { type: 'gauge32', value: 1 } } },
      /^rtmetric.a b: a name has/,
    ],
    [
      'a source that looks like a number',
      { rtmetric: { datasource: '1a', a: { type: 'gauge32', value: 1 } } },
      /^rtmetric.datasource: expected a name that does not begin with a digit, got "1a"$/,
    ],
    [
      'the name of a built-in',
      JSON.parse('{"__proto__": {}, "toString": {}}'),
      /^__proto__: expected one of/,
    ],
  ]
  for (const [what, message, problem] of wrong) {
    test(`${what} is told of with its place`, () => {
      const { messages, problems } = read(message)
      assert.deepEqual(messages, [])
      assert.match(problems[0]!, problem)
    })
  }

  test('a part that is wrong takes nothing with it', () => {
    const { messages, problems } = read({
      flow_sample: { app_name: 7 },
      rtmetric: { load: { type: 'gaugeFloat', value: 1 } },
    })
    assert.deepEqual(
      messages.map(({ kind }) => kind),
      ['metrics'],
    )
    assert.deepEqual(problems, ['flow_sample.app_operation is missing'])
  })

  test('long texts are cut between characters', () => {
    const { messages } = read({ flow_sample: { app_name: 'ä'.repeat(40), app_operation: {} } })
    assert.equal((messages[0] as { application: string }).application, 'ä'.repeat(16))
  })

  test('nothing makes it throw', () => {
    fc.assert(fc.property(fc.string(), text => void readMessage(text)))
    const names = [
      'flow_sample',
      'app_name',
      'app_operation',
      'status',
      'rtmetric',
      'type',
      'value',
      'rtflow',
    ]
    const messages = fc.letrec(tie => ({
      value: fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        fc.jsonValue(),
        fc.dictionary(fc.constantFrom(...names), tie('value')),
      ),
    })).value
    fc.assert(
      fc.property(messages, value => void readMessage(JSON.stringify(value))),
      { numRuns: 1000 },
    )
  })
})

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  LIBVIRT_PROCEDURE,
  libvirtArguments,
  libvirtMessageLength,
  libvirtText,
  readDomainStats,
  readLibvirtError,
  readLibvirtMessage,
  writeLibvirtCall,
} from '../../agent/wire/libvirt.ts'
import { WireError } from '../../agent/wire/xdr.ts'

/** What libvirt 9.0 answers for the domain of its test driver, and to a procedure that there is not, as it came. */
const STATS = Buffer.from(
  '000000702000808600000001000001580000000100000003000000000000000100000004746573746695eb01f6a4830479aa97f2' +
    '502e193f00000001000000020000000b73746174652e73746174650000000001000000010000000c73746174652e726561736f6e' +
    '0000000100000000',
  'hex',
)
const REFUSAL = Buffer.from(
  '0000008820008086000000010000270f00000001000000040000000100000027000000070000000100000017756e6b6e6f776e20' +
    '70726f6365647572653a20393939390000000002000000000000000100000002257300000000000100000017756e6b6e6f776e20' +
    '70726f6365647572653a20393939390000000000ffffffffffffffff00000000',
  'hex',
)

describe('libvirt messages', () => {
  test('figures of a domain', () => {
    assert.equal(libvirtMessageLength(STATS), STATS.length)
    const message = readLibvirtMessage(STATS)
    assert.deepEqual(
      [message.program, message.procedure, message.type, message.serial, message.status],
      [0x20008086, LIBVIRT_PROCEDURE.connectGetAllDomainStats, 1, 3, 0],
    )
    const [{ domain, stats }] = readDomainStats(message.body) as [ReturnType<typeof readDomainStats>[0]]
    assert.deepEqual([domain.name, domain.uuid], ['test', '6695eb01-f6a4-8304-79aa-97f2502e193f'])
    // What stands for the domain in a call is what came: name, UUID and number.
    assert.equal(Buffer.from(domain.handle).toString('hex'), STATS.subarray(32, 60).toString('hex'))
    assert.deepEqual(
      [...stats],
      [
        ['state.state', 1],
        ['state.reason', 0],
      ],
    )
  })

  test('a refusal', () => {
    const { status, body } = readLibvirtMessage(REFUSAL)
    assert.equal(status, 1)
    assert.equal(readLibvirtError(body), 'unknown procedure: 9999')
  })

  test('a call', () => {
    const args = libvirtArguments(1, libvirtText('test:///default'), 1)
    assert.equal(
      Buffer.from(writeLibvirtCall(LIBVIRT_PROCEDURE.connectOpen, 2, args)).toString('hex'),
      '000000382000808600000001000000010000000000000002000000000000000' +
        '10000000f746573743a2f2f2f64656661756c740000000001',
    )
  })

  test('lengths that no message has', () => {
    assert.equal(libvirtMessageLength(STATS.subarray(0, 3)), undefined)
    for (const length of [0, 27, 33_554_433, 0xffffffff]) {
      const head = Buffer.alloc(4)
      head.writeUInt32BE(length)
      assert.throws(() => libvirtMessageLength(head), /its length would be/)
    }
  })

  test('an answer that is cut or changed anywhere is read, or is an error', () => {
    for (let length = 28; length < STATS.length; length++) {
      assert.throws(() => readDomainStats(readLibvirtMessage(STATS.subarray(0, length)).body), WireError)
    }
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 28, max: STATS.length - 1 }), fc.nat(255))),
        changes => {
          const changed = Buffer.from(STATS)
          for (const [at, value] of changes) changed[at] = value
          try {
            readDomainStats(readLibvirtMessage(changed).body)
          } catch (error) {
            assert.ok(error instanceof WireError, String(error))
          }
        },
      ),
      { numRuns: 1000 },
    )
  })
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { DNS_TYPE, DnsFormatError, dnsQuestion, readDnsAnswer } from '../../agent/wire/dns.ts'

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'))

/** _sflow._udp.example.test, as it stands in a message. */
const NAME = '065f73666c6f77 045f756470 076578616d706c65 0474657374 00'
const HEADER = '1234 8180 0001 0002 0000 0000'
const QUESTION = `${NAME} 0021 0001`
/** The name again by a pointer, TTL 60, priority 1, weight 2, port 6343, target a.example.test by a pointer. */
const SRV = 'c00c 0021 0001 0000003c 000a 0001 0002 18c7 0161 c018 '
const TXT = 'c00c 0010 0001 0000000a 0008 03613d31 03623d32'

test('a question: id, recursion desired, name, type, class', () => {
  const question = dnsQuestion(0x1234, '_sflow._udp.example.test.', DNS_TYPE.SRV)
  assert.deepEqual(question, hex(`1234 0100 0001 0000 0000 0000 ${QUESTION}`))
})

for (const name of ['', 'a..b', `${'a'.repeat(64)}.b`, Array(128).fill('ab').join('.')]) {
  test(`no question for "${name.slice(0, 20)}"`, () =>
    assert.equal(dnsQuestion(1, name, DNS_TYPE.TXT), undefined))
}

test('an answer: SRV and TXT, names that point back, the least TTL', () => {
  const answer = readDnsAnswer(hex(HEADER + QUESTION + SRV + TXT))
  assert.deepEqual(answer, {
    id: 0x1234,
    truncated: false,
    responseCode: 0,
    leastTtlSeconds: 10,
    records: [
      { type: 'SRV', ttlSeconds: 60, priority: 1, weight: 2, port: 6343, target: 'a.example.test' },
      { type: 'TXT', ttlSeconds: 10, strings: ['a=1', 'b=2'] },
    ],
  })
})

const broken = [
  { name: 'a question', bytes: `1234 0100 0001 0000 0000 0000 ${QUESTION}`, offset: 2 },
  { name: 'a name that points to itself', bytes: `${HEADER} c00c 0021 0001`, offset: 12 },
  { name: 'a label of unknown kind', bytes: `${HEADER} 40`, offset: 12 },
  {
    name: 'a target that ends too early',
    bytes: HEADER + QUESTION + SRV.replace('000a', '000b'),
    offset: 64,
  },
]
for (const { name, bytes, offset } of broken) {
  test(`not an answer: ${name}`, () => {
    assert.throws(
      () => readDnsAnswer(hex(`${bytes} 00`)),
      (error: unknown) => error instanceof DnsFormatError && error.offset === offset,
    )
  })
}

test('an answer that is cut off anywhere fails inside it, and any bytes at all end', () => {
  const whole = hex(HEADER + QUESTION + SRV + TXT)
  for (let length = 0; length < whole.length; length++) {
    assert.throws(
      () => readDnsAnswer(whole.subarray(0, length)),
      (error: unknown) => error instanceof DnsFormatError && error.offset <= length,
    )
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(), (noise, at) => {
      const bytes = whole.slice()
      bytes.set(noise.subarray(0, whole.length - (at % whole.length)), at % whole.length)
      try {
        readDnsAnswer(bytes)
      } catch (error) {
        assert.ok(error instanceof DnsFormatError)
      }
    }),
  )
})

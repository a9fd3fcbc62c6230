import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NetlinkFormatError } from '../../../agent/wire/netlink/attributes.ts'
import { NLCTRL_ID, readFamily, readFamilyNotification } from '../../../agent/wire/netlink/genl-ctrl.ts'
import { genlRequest, type Message, type MessageBuilder } from '../../../agent/wire/netlink/message.ts'

const ID = 1
const NAME = 2
const GROUPS = 7

function message(command: number, build: (builder: MessageBuilder) => MessageBuilder): Message {
  const bytes = build(genlRequest(NLCTRL_ID, command, 2)).build()
  return { type: NLCTRL_ID, flags: 0, view: new DataView(bytes.buffer) }
}

const psample = (builder: MessageBuilder) =>
  builder
    .text(NAME, 'psample')
    .u16(ID, 35)
    .u32(3, 1)
    .nest(GROUPS, groups =>
      groups
        .nest(1, group => group.u32(2, 19).text(1, 'config'))
        .nest(2, group => group.u32(2, 20).text(1, 'packets')),
    )

test('a family with its groups', () => {
  assert.deepEqual(readFamily(message(1, psample)), {
    id: 35,
    name: 'psample',
    version: 1,
    groups: new Map([
      ['config', 19],
      ['packets', 20],
    ]),
  })
})

test('a family without groups', () => {
  const family = readFamily(message(1, builder => builder.text(NAME, 'TASKSTATS').u16(ID, 22)))
  assert.equal(family.groups.size, 0)
})

test('a family that comes, one that goes, and a group alone', () => {
  assert.deepEqual(
    [1, 2, 7].map(command => {
      const change = readFamilyNotification(message(command, psample))
      return change && { gone: change.gone, name: change.family.name }
    }),
    [{ gone: false, name: 'psample' }, { gone: true, name: 'psample' }, undefined],
  )
})

const broken: [string, Message, string, RegExp][] = [
  ['without an id', message(1, builder => builder.text(NAME, 'x')), 'missing', /without id or name/],
  ['without a name', message(1, builder => builder.u16(ID, 1)), 'missing', /without id or name/],
  [
    'with an id of 4 bytes',
    message(1, builder => builder.u32(ID, 1).text(NAME, 'x')),
    'wrong-size',
    /instead of 2/,
  ],
  [
    'whose group has no number',
    message(1, builder =>
      builder
        .text(NAME, 'x')
        .u16(ID, 1)
        .nest(GROUPS, groups => groups.nest(1, group => group.text(1, 'packets'))),
    ),
    'missing',
    /group of family 'x' without id or name/,
  ],
]
for (const [name, data, code, text] of broken) {
  test(`a family ${name} is an error`, () => {
    assert.throws(
      () => readFamily(data),
      error => error instanceof NetlinkFormatError && error.code === code && text.test(error.message),
    )
  })
}

test('a notification without the header of generic netlink is an error', () => {
  const view = new DataView(new ArrayBuffer(16))
  assert.throws(
    () => readFamilyNotification({ type: NLCTRL_ID, flags: 0, view }),
    error => error instanceof NetlinkFormatError && error.code === 'wrong-size',
  )
})

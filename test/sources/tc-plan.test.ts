import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { makeCookie, type Plan, planSampler, samplerKey, type Target } from '../../agent/sources/tc-plan.ts'
import { CLSACT_INGRESS, CONTINUE, ETH_P_ALL, FILTER_FLAG, type Filter } from '../../agent/wire/netlink/tc.ts'

const INSTANCE = 7
const target: Target = { key: samplerKey(2, 'ingress'), flags: 0, rate: 400, group: 1, truncate: 128 }
const place = { ifIndex: 2, parent: CLSACT_INGRESS, protocol: ETH_P_ALL, chain: 0 }

function foreign(preference: number, values: Partial<Filter> = {}): Filter {
  return { ...place, preference, handle: 1, kind: 'flower', flags: 0, sample: undefined, ...values }
}

function sampler(preference: number, values: Partial<Filter['sample']> = {}, instance = INSTANCE): Filter {
  const cookie = makeCookie({ instance, ifIndex: 2, direction: 'ingress' })
  const stats = { packets: 0n, bytes: 0n, hasHardwarePart: false }
  const sample = {
    index: preference,
    control: CONTINUE,
    rate: 400,
    group: 1,
    truncate: 128,
    cookie,
    stats,
    ...values,
  }
  return { ...place, preference, handle: 1, kind: 'matchall', flags: FILTER_FLAG.notInHw, sample }
}

const head = (preference: number, kind = 'matchall') => foreign(preference, { handle: 0, kind })

/** A plan in short: preferences to remove, the one that stays, what is done. */
function short({ remove, keep, retune, addAt, behind }: Plan) {
  return {
    ...(remove.length > 0 ? { remove: remove.map(filter => filter.preference) } : {}),
    ...(keep === undefined ? {} : { [retune ? 'retune' : 'keep']: keep.preference }),
    ...(addAt === undefined ? {} : { addAt }),
    ...(behind === undefined ? {} : { behind: behind.preference }),
  }
}

describe('planning one hook', () => {
  const rows: readonly [
    name: string,
    filters: Filter[],
    expected: object,
    target?: Target | null,
    canRetune?: false,
  ][] = [
    ['nothing there', [], { addAt: 10 }],
    ['nothing wanted, nothing there', [], {}, null],
    ['nothing wanted: ours go, others stay', [sampler(10), foreign(20)], { remove: [10] }, null],
    ['as wanted', [head(10), sampler(10)], { keep: 10 }],
    ['another rate', [head(10), sampler(10, { rate: 5 })], { retune: 10 }],
    ['another group', [sampler(10, { group: 5 })], { retune: 10 }],
    ['another length', [sampler(10, { truncate: 0 })], { retune: 10 }],
    [
      'another rate, no change in place',
      [sampler(10, { rate: 5 })],
      { remove: [10], addAt: 10 },
      target,
      false,
    ],
    [
      'another rate, in hardware',
      [{ ...sampler(10, { rate: 5 }), flags: FILTER_FLAG.inHw }],
      { remove: [10], addAt: 10 },
    ],
    ['another verdict', [sampler(10, { control: 3 })], { remove: [10], addAt: 10 }],
    [
      'software where hardware is wanted',
      [sampler(10)],
      { remove: [10], addAt: 10 },
      { ...target, flags: FILTER_FLAG.skipSw },
    ],
    ['in another chain', [{ ...sampler(10), chain: 1 }], { remove: [10], addAt: 10 }],
    ['for another EtherType', [{ ...sampler(10), protocol: 0x0800 }], { remove: [10], addAt: 10 }],
    ['two of ours', [sampler(8), sampler(9)], { remove: [9], keep: 8 }],
    ['two of ours, the first unfit', [sampler(8, { control: 3 }), sampler(9)], { remove: [8], keep: 9 }],
    [
      'one of ours for another interface',
      [sampler(10, { cookie: makeCookie({ instance: INSTANCE, ifIndex: 3, direction: 'ingress' }) })],
      { remove: [10], addAt: 10 },
    ],
    ['before the filters of others', [foreign(49152)], { addAt: 10 }],
    ['before one that stands before 10', [foreign(49152), foreign(4)], { addAt: 3 }],
    ['one came before ours: move', [foreign(4), sampler(10)], { remove: [10], addAt: 3 }],
    ['nothing stands before 1', [foreign(1)], { addAt: 2, behind: 1 }],
    [
      'nothing stands before 1; 2 and 3 are taken',
      [foreign(1), foreign(3), foreign(2)],
      { addAt: 4, behind: 1 },
    ],
    ['behind 1 ours stays where it is', [foreign(1), sampler(10)], { keep: 10, behind: 1 }],
    ['an entry without handle alone counts as a filter', [head(4, 'bpf')], { addAt: 3 }],
    ['filters of another chain are in nobody’s way', [foreign(1, { chain: 5 })], { addAt: 10 }],
    [
      'a sampler of another agent hides nothing, but has its place',
      [head(10), sampler(10, {}, 8)],
      { addAt: 9 },
    ],
    ['a sampler of another agent before ours', [sampler(3, {}, 8), sampler(10)], { keep: 10 }],
    [
      'a sampler of another agent that ends the classification',
      [sampler(3, { control: 3 }, 8), sampler(10)],
      { remove: [10], addAt: 2 },
    ],
    [
      'all places before are taken by samplers',
      Array.from({ length: 10 }, (_, i) => sampler(i + 1, {}, 8)),
      { addAt: 11 },
    ],
  ]
  for (const [name, filters, expected, wanted = target, canRetune = true] of rows) {
    test(name, () => {
      assert.deepEqual(short(planSampler(filters, wanted ?? undefined, INSTANCE, canRetune)), expected)
    })
  }
})

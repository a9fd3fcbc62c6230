import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { StreamWatch } from '../../agent/decode/streams.ts'

const NAME = 'agent 192.0.2.1 sub-agent 0'

/** What is said about datagrams with these sequence numbers and uptimes. */
function events(
  ...datagrams: [sequence: number, uptime: number, subAgent?: number][]
): (string | undefined)[] {
  const watch = new StreamWatch()
  return datagrams.map(([sequence_number, uptime, sub_agent_id = 0]) =>
    watch.next({
      agent_address: '192.0.2.1',
      sub_agent_id,
      sequence_number,
      uptime,
      samples: [],
      problems: [],
    }),
  )
}

suite('datagrams of one sub-agent', () => {
  const rows: [name: string, datagrams: [number, number][], event: string | undefined][] = [
    [
      'in order',
      [
        [7, 100],
        [8, 200],
      ],
      undefined,
    ],
    [
      'across the wrap of both numbers',
      [
        [0xffffffff, 0xffffffff],
        [0, 10],
      ],
      undefined,
    ],
    [
      'one lost',
      [
        [7, 100],
        [9, 200],
      ],
      `${NAME}: 1 lost before datagram 9`,
    ],
    [
      'five lost across the wrap',
      [
        [0xfffffffe, 100],
        [4, 200],
      ],
      `${NAME}: 5 lost before datagram 4`,
    ],
    [
      'twice',
      [
        [7, 100],
        [7, 100],
      ],
      `${NAME}: datagram 7 came twice`,
    ],
    [
      'late',
      [
        [7, 100],
        [9, 200],
        [8, 150],
      ],
      `${NAME}: datagram 8 came late`,
    ],
    [
      'restarted',
      [
        [700, 90_000],
        [1, 100],
      ],
      `${NAME}: restarted`,
    ],
    [
      'restarted soon after the start',
      [
        [3, 90_000],
        [1, 100],
      ],
      `${NAME}: restarted`,
    ],
    [
      'restarted, the first ones not seen',
      [
        [700, 90_000],
        [20, 100],
      ],
      `${NAME}: restarted`,
    ],
    [
      'restarted and further than before',
      [
        [7, 90_000],
        [9, 100],
      ],
      `${NAME}: restarted`,
    ],
    [
      'going on after a restart',
      [
        [700, 90_000],
        [1, 100],
        [2, 200],
      ],
      undefined,
    ],
    [
      'going on after a late one',
      [
        [7, 100],
        [9, 200],
        [8, 150],
        [10, 300],
      ],
      undefined,
    ],
  ]
  for (const [name, datagrams, event] of rows) {
    test(name, () => assert.equal(events(...datagrams).at(-1), event))
  }
})

test('each sub-agent counts for itself', () => {
  assert.deepEqual(events([7, 100, 0], [900, 100, 1], [8, 200, 0], [902, 200, 1]), [
    undefined,
    undefined,
    undefined,
    'agent 192.0.2.1 sub-agent 1: 1 lost before datagram 902',
  ])
})

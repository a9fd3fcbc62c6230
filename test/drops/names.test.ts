/** Words of a kernel for numbers: reasons and functions. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { DropNames } from '../../agent/drops/drop-names.ts'
import { addressOf, KernelSymbols } from '../../agent/drops/kernel-symbols.ts'
import { Names } from '../../agent/samples/drop.ts'
import { until } from '../support/lab.ts'

function symbolsOf(t: TestContext, lines: readonly string[]): Promise<KernelSymbols> {
  const folder = mkdtempSync(join(tmpdir(), 'weir-symbols-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'kallsyms')
  writeFileSync(file, lines.map(line => `${line}\n`).join(''))
  return KernelSymbols.read(file)
}

const KERNEL = [
  'ffffffff81000000 T _text',
  'ffffffff81000000 T first',
  'ffffffff81000100 D a_variable',
  'ffffffff81000200 t second',
  'ffffffff81000300 W third',
  'ffffffffc0200000 t in_module\t[two]',
  'ffffffffc0100000 t also_in_module\t[one]',
  'ffffffffc0100080 t last_in_module\t[one]',
]

describe('symbols', () => {
  const at = (low: number, high = 0xffffffff) => addressOf(high, low)

  for (const { name, address, place } of [
    { name: 'the first byte', address: at(0x81000200), place: 'second+0x0/0x100' },
    { name: 'within', address: at(0x8100_02ff), place: 'second+0xff/0x100' },
    { name: 'behind data', address: at(0x81000110), place: '_text+0x110/0x200' },
    { name: 'a module', address: at(0xc0200010), place: 'in_module+0x10/0x8000 [two]' },
    {
      name: 'a module that is not in order',
      address: at(0xc0100040),
      place: 'also_in_module+0x40/0x80 [one]',
    },
    { name: 'before the first', address: at(0x8000_0000), place: undefined },
    { name: 'far behind a function', address: at(0x90000000), place: undefined },
    { name: 'beyond the last', address: at(0xf000_0000), place: undefined },
    { name: 'nowhere', address: 0, place: undefined },
  ]) {
    test(name, async t => {
      assert.equal((await symbolsOf(t, KERNEL)).at(address), place)
    })
  }

  test('addresses that are hidden give nothing', async t => {
    const symbols = await symbolsOf(t, ['0000000000000000 T _text', '0000000000000000 T first'])
    assert.equal(symbols.size, 0)
    assert.equal(symbols.at(at(0x81000000)), undefined)
  })

  test('padding before a function ends the one before, and is none itself', async t => {
    const symbols = await symbolsOf(t, [
      'ffffffff81000000 T first',
      'ffffffff810000f0 t __pfx_second',
      'ffffffff81000100 t second',
    ])
    assert.equal(symbols.at(at(0x81000010)), 'first+0x10/0xf0')
    assert.equal(symbols.at(at(0x810000f8)), undefined)
    assert.equal(symbols.at(at(0x81000100)), 'second+0x0/0x8000')
  })

  test('modules far away from the kernel', async t => {
    const symbols = await symbolsOf(t, [
      'ffffffff81000000 T first',
      'ffff800001234000 t in_module\t[one]',
      'ffff800001234100 t last_in_module\t[one]',
    ])
    assert.equal(symbols.at(at(0x81000010)), 'first+0x10/0x8000')
    assert.equal(symbols.at(at(0x01234010, 0xffff8000)), 'in_module+0x10/0x100 [one]')
  })

  test('lines that are none are passed over', async t => {
    const symbols = await symbolsOf(t, [
      '',
      'T',
      `${'x'.repeat(200_000)}`,
      'ffffffffzzzzzzzz T bad',
      ...KERNEL,
    ])
    assert.equal(symbols.size, 7)
  })

  test('many', async t => {
    const lines = Array.from({ length: 150_000 }, (_, i) => {
      return `${(0xffffffff81000000n + BigInt(i * 16)).toString(16)} t a_function_with_the_number_${i}`
    })
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const megabytes = () => {
      collect()
      return process.memoryUsage().arrayBuffers / 1e6
    }
    const before = megabytes()
    const symbols = await symbolsOf(t, lines)
    // Names of 4.6 MB and their addresses. Buffers are freed by another thread, some time after the collection.
    await until('less than 2 MB', () => megabytes() < before + 2)
    assert.equal(symbols.size, 150_000)
    for (const i of [0, 1, 77_777, 149_998]) {
      assert.equal(symbols.at(at(0x81000000 + i * 16 + 5)), `a_function_with_the_number_${i}+0x5/0x10`)
    }
  })

  test('of the running kernel', async t => {
    const text = readFileSync('/proc/kallsyms', 'latin1')
    const line = /^([0-9a-f]{8})([0-9a-f]{8}) [tT] (__netif_receive_skb_core\S*)$/m.exec(text)!
    const address = at(Number.parseInt(line[2]!, 16) + 3, Number.parseInt(line[1]!, 16))
    if (address === 3) return t.skip('this process may not see addresses')
    const symbols = await KernelSymbols.read()
    assert.match(symbols.at(address)!, /^__netif_receive_skb_core\S*\+0x3\/0x[0-9a-f]+$/)
  })
})

describe('names', () => {
  const reasons = [
    { name: 'NO_SOCKET', value: 3, from: 'vmlinux', isMapped: true },
    { name: 'OVS_DROP_METER', value: 0x30005, from: 'openvswitch', isMapped: true },
  ]

  test('reasons by number, of subsystems too; one beyond the table has its number', () => {
    const names = new DropNames(new Names(), { reasons: () => reasons })
    assert.equal(names.reason(3)!.text, 'NO_SOCKET')
    assert.equal(names.reason(0x30005)!.text, 'OVS_DROP_METER')
    assert.equal(names.reason(999)!.text, 'UNKNOWN_0x3e7')
    assert.equal(names.reason(0xffffffff)!.text, 'UNKNOWN_0xffffffff')
    assert.equal(names.reason(999), names.reason(999))
  })

  test('functions, when they have been read', async t => {
    const names = new DropNames(new Names(), { reasons: () => [], symbols: () => symbolsOf(t, KERNEL) })
    assert.equal(names.symbol(0xffffffff, 0x81000210), undefined)
    assert.equal(await names.load(), true)
    assert.equal(names.symbol(0xffffffff, 0x81000210)!.text, 'second+0x10/0x100')
    assert.equal(names.symbol(0xffffffff, 0x10), undefined)
    names.close()
  })

  test('what a module brings is known after a while', async t => {
    let known = reasons.slice(0, 1)
    let lines = KERNEL.slice(0, 5)
    const names = new DropNames(new Names(), {
      reasons: () => known,
      symbols: () => symbolsOf(t, lines),
      againMs: 5,
    })
    await names.load()
    const { generation } = names
    known = reasons
    lines = KERNEL
    assert.equal(names.reason(0x30005)!.text, 'UNKNOWN_0x30005')
    assert.equal(names.symbol(0xffffffff, 0xc0200010), undefined)
    await until('another reading', () => names.generation > generation)
    assert.equal(names.reason(0x30005)!.text, 'OVS_DROP_METER')
    assert.equal(names.symbol(0xffffffff, 0xc0200010)!.text, 'in_module+0x10/0x8000 [two]')
    names.close()
  })

  test('what no reading knows is looked for once', async t => {
    let readings = 0
    const symbols = () => {
      readings++
      return symbolsOf(t, KERNEL)
    }
    const names = new DropNames(new Names(), { reasons: () => [], symbols, againMs: 5 })
    await names.load()
    const { generation } = names
    assert.equal(names.symbol(0xffffffff, 0x90000000), undefined)
    await until('another reading', () => names.generation > generation)
    assert.equal(names.symbol(0xffffffff, 0x90000000), undefined)
    await sleep(50)
    assert.equal(readings, 2)
    names.close()
  })
})

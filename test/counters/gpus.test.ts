import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Gpus } from '../../agent/counters/gpus.ts'
import { type AskGpus, openNvml } from '../../agent/kernel/nvml.ts'
import { UNKNOWN32 } from '../../agent/wire/struct.ts'

const SOURCE = join(import.meta.dirname, '../support/fake-nvml.c')
const NVML = join(import.meta.dirname, '../../agent/kernel/nvml.ts')
const GIB = 2n ** 30n

let folder: string
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'weir-nvml-'))
})
after(() => rmSync(folder, { recursive: true }))

/** Compiles the stand-in with these definitions; gives its path. */
function library(name: string, ...definitions: string[]): string {
  const path = join(folder, `${name}.so`)
  const options = definitions.map(definition => `-D${definition}`)
  execFileSync('cc', ['-shared', '-fPIC', '-o', path, ...options, SOURCE])
  return path
}

/** A question does not keep the process: the program does, until it has its answer. */
const KEEP = 'const keep = setTimeout(() => {}, 30_000)'

/** Runs a program that ends by itself, with `openNvml` at hand: one process for each library. */
function program(text: string): { status: number | null; out: string } {
  const path = join(folder, `program-${Math.random()}.ts`)
  writeFileSync(path, `import { openNvml } from ${JSON.stringify(NVML)}\n${KEEP}\n${text}`)
  const { status, stdout } = spawnSync(process.execPath, [path], { encoding: 'utf8', timeout: 60_000 })
  return { status, out: stdout.trim() }
}

/** GPUs on a clock of their own, and the library's answers. */
function gpus(open: () => Promise<AskGpus>) {
  const clock = { ms: 5000 }
  const absent: string[] = []
  const all = new Gpus({ open, onAbsent: ({ message }) => absent.push(message), now: () => clock.ms })
  return { all, clock, absent }
}

describe('nvidia_gpu', () => {
  test('two devices of a library: sums, the hottest, the fastest fan, and what adds up over time', async t => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const ask = await openNvml(library('usual'))
    const answers: Promise<BigUint64Array>[] = []
    const { all, clock } = gpus(async () => () => {
      const answer = ask()
      answers.push(answer)
      return answer
    })
    t.after(() => all.stop())
    all.start()
    assert.equal(all.reader.read(), undefined)
    await turn()
    const second = async () => {
      await answers.at(-1)
      await turn()
      clock.ms += 1000
      t.mock.timers.tick(1000)
      await answers.at(-1)
      await turn()
    }
    await answers.at(-1)
    await turn()
    const record = {
      device_count: 2,
      processes: 3,
      gpu_time: 0,
      mem_time: 0,
      mem_total: 160n * GIB,
      mem_free: 80n * GIB,
      ecc_errors: 7,
      energy: 5000,
      temperature: 74,
      fan_speed: 42,
    }
    assert.deepEqual(all.reader.read(), record)
    for (let i = 0; i < 3; i++) await second()
    // In three seconds: one device all of the time, one half of it. 200 W of the second are 200 J a second.
    assert.deepEqual(all.reader.read(), {
      ...record,
      gpu_time: 4500,
      mem_time: 750,
      energy: 5000 + 3 * 200_000,
    })
    assert.equal(answers.length, 4)
  })

  test('a device that is lost keeps what it had: no sum goes back', async t => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const words = (...devices: Record<number, bigint>[]) => {
      const all = new BigUint64Array(11 * devices.length)
      for (const [i, device] of devices.entries()) {
        for (const [word, value] of Object.entries(device)) {
          all[11 * i]! |= 1n << BigInt(word)
          all[11 * i + Number(word)] = value
        }
      }
      return all
    }
    const full = { 1: 10n, 3: 100n, 4: 40n, 5: 2n, 6: 1000n }
    const answers = [words(full, full), words(full, {}), words({ ...full, 6: 1500n }, full)]
    const { all, clock } = gpus(async () => async () => (answers.length > 1 ? answers.shift()! : answers[0]!))
    t.after(() => all.stop())
    all.start()
    const energies: number[] = []
    for (let i = 0; i < 3; i++) {
      for (let turns = 0; turns < 5; turns++) await turn()
      const { energy, ecc_errors, mem_total, device_count } = (await all.reader.read())!
      assert.deepEqual([ecc_errors, mem_total, device_count], [4, 200n, 2])
      energies.push(energy)
      clock.ms += 1000
      t.mock.timers.tick(1000)
    }
    assert.deepEqual(energies, [2000, 2000, 2500])
  })

  test('a library that fails and one that hangs are told of, and the structure comes again', async t => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const answers: (() => Promise<BigUint64Array>)[] = [
      async () => {
        throw new Error('nvmlDeviceGetCount: error 999')
      },
      () => new Promise(() => {}),
    ]
    const { all, clock } = gpus(async () => () => answers.shift()!())
    t.after(() => all.stop())
    all.start()
    for (let turns = 0; turns < 5; turns++) await turn()
    assert.throws(() => all.reader.read(), { message: 'nvmlDeviceGetCount: error 999' })
    t.mock.timers.tick(1000)
    clock.ms += 12_000
    t.mock.timers.tick(12_000)
    assert.equal(answers.length, 0, 'not asked again while it hangs')
    assert.throws(() => all.reader.read(), /999|has not answered for 12 s/)
  })

  const libraries: [name: string, definitions: string[], shown: string][] = [
    ['bare', ['BARE'], '2 devices, known: 0 0'],
    ['none', ['NONE'], '0 devices, known:'],
    // Of the second device all but power, temperature and processes is lost, and it never had energy and fan.
    ['lost', ['LOST'], '2 devices, known: 2046 1408'],
    ['init', ['INIT_RESULT=9'], 'error: FOLDER/init.so: nvmlInit: error 9'],
    ['symbol', ['NO_COUNT'], "error: FOLDER/symbol.so: not a library of NVIDIA's management interface"],
  ]
  for (const [name, definitions, shown] of libraries) {
    test(`a library: ${name}`, () => {
      const path = library(name, ...definitions)
      const { status, out } = program(`
        try {
          const ask = await openNvml(${JSON.stringify(path)})
          await ask()
          const words = await ask()
          const known = [...words].filter((_, i) => i % 11 === 0)
          console.log(words.length / 11 + ' devices, known: ' + known.join(' '))
        } catch (error) { console.log('error: ' + error.message) }
        clearTimeout(keep)`)
      assert.equal(out, shown.replace('FOLDER', folder))
      assert.equal(status, 0)
    })
  }

  test('nonsense: only so many devices, and no more than all of the time', async t => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const words = program(`
      const ask = await openNvml(${JSON.stringify(library('nonsense', 'NONSENSE'))})
      console.log(JSON.stringify([...await ask()].map(String)))
      clearTimeout(keep)`)
    const answer = BigUint64Array.from((JSON.parse(words.out) as string[]).map(BigInt))
    assert.equal(answer.length, 64 * 11)
    const { all, clock } = gpus(async () => async () => answer)
    t.after(() => all.stop())
    all.start()
    for (let turns = 0; turns < 5; turns++) await turn()
    clock.ms += 1000
    t.mock.timers.tick(1000)
    for (let turns = 0; turns < 5; turns++) await turn()
    assert.equal((await all.reader.read())!.gpu_time, 2000)
  })

  for (const [where, definition] of [
    ['while it is loaded', 'HANG_INIT'],
    ['while it is asked', 'HANG_READ'],
  ] as const) {
    test(`a library that hangs ${where} holds neither the event loop nor the process`, () => {
      const path = library(definition, definition)
      const { status, out } = program(`
        void openNvml(${JSON.stringify(path)}).then(ask => ask()).then(() => console.log('answered'))
        let ticks = 0
        clearTimeout(keep)
        const timer = setInterval(() => {
          if (++ticks < 5) return
          clearInterval(timer)
          console.log('5 ticks')
        }, 20)`)
      assert.equal(out, '5 ticks')
      assert.equal(status, 0)
    })
  }

  test('no library: told once, and no record', async t => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const path = join(folder, 'missing.so')
    const opening = openNvml(path)
    const { all, absent } = gpus(() => opening)
    t.after(() => all.stop())
    all.start()
    await opening.catch(() => {})
    await turn()
    assert.equal(absent.length, 1)
    assert.match(absent[0]!, /missing\.so: cannot open shared object file/)
    assert.equal(all.reader.read(), undefined)
  })

  test('what no device tells is not known', async t => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const { all } = gpus(async () => async () => new BigUint64Array(11))
    t.after(() => all.stop())
    all.start()
    for (let turns = 0; turns < 5; turns++) await turn()
    const { gpu_time, mem_time, ecc_errors, energy, device_count } = (await all.reader.read())!
    assert.deepEqual([gpu_time, mem_time, ecc_errors, energy], new Array(4).fill(UNKNOWN32))
    assert.equal(device_count, 1)
  })
})

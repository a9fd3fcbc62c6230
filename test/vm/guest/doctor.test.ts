/** `weir doctor` on kernels with the modules of a switch: there, taken away, and refused. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { examine } from '../../support/doctor.ts'
import { modprobe, unload } from '../../support/guest.ts'

const MODPROBE = '/proc/sys/kernel/modprobe'
const SETTINGS =
  'collector { ip = 127.0.0.1 } psample { } dent { } dropmon { source = drop_monitor } agentIP = 192.0.2.1'

test('modules: there, gone, and without permission', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'weir-doctor-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const states = async (...under: string[]) => {
    const { exit, of } = await examine(under, { folder, settings: SETTINGS })
    const found = (['psample', 'tc', 'drop monitor'] as const).map(name => of(name)[0]!)
    return { exit, found: found.map(({ state, mend }) => (mend === undefined ? state : `${state}: ${mend}`)) }
  }

  modprobe('psample', 'act_sample', 'cls_matchall', 'sch_ingress', 'drop_monitor')
  assert.deepEqual(await states(), { exit: 0, found: ['ok', 'ok', 'ok'] })

  const [psample] = (await states('setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin')).found
  assert.match(psample!, /^missing: run it with CAP_NET_ADMIN/)

  // The kernel loads modules by this program when somebody asks for what they bring.
  const before = readFileSync(MODPROBE, 'utf8')
  t.after(() => writeFileSync(MODPROBE, before))
  // Open vSwitch samples by PSAMPLE, too (Linux 6.11).
  for (const name of ['act_sample', 'netdevsim', 'openvswitch', 'psample', 'drop_monitor']) unload(name)
  writeFileSync(MODPROBE, '/bin/false')
  assert.deepEqual(await states(), {
    exit: 1,
    found: [
      'missing: modprobe psample',
      'missing: modprobe act_sample cls_matchall sch_ingress',
      'missing: modprobe drop_monitor',
    ],
  })
  // What it says mends it.
  writeFileSync(MODPROBE, before)
  modprobe('psample', 'act_sample', 'cls_matchall', 'sch_ingress', 'drop_monitor')
  assert.deepEqual(await states(), { exit: 0, found: ['ok', 'ok', 'ok'] })
})

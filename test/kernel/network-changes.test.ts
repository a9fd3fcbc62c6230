import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SystemError } from '../../agent/kernel/native.ts'
import { followNetwork } from '../../agent/kernel/network-changes.ts'
import { ip, ipBatch, until } from '../support/lab.ts'

test('changes of links, addresses and routes are told of soon, and a full table costs no more than one of them', async t => {
  const namespace = `weir-W-${process.pid}`
  ip(`netns add ${namespace}`)
  t.after(() => ip(`netns del ${namespace}`))
  let told = 0
  const follow = () => followNetwork(namespace, () => told++)
  const once = async (command: string) => {
    told = 0
    const changes = follow()
    await sleep(100)
    assert.equal(told, 0, 'nothing has changed')
    ip(`-n ${namespace} ${command}`)
    await until(command, () => told > 0)
    changes.close()
  }
  await once('link add veth0 type veth peer name veth1')
  // Link-local addresses would come some time after.
  ip(`-n ${namespace} link set veth0 addrgenmode none`)
  ip(`-n ${namespace} link set veth1 addrgenmode none up`)
  await once('link set veth0 up')
  await once('address add 192.0.2.1/24 dev veth0')
  await once('address add 2001:db8::1/64 dev veth0 nodad')
  await once('route add 198.51.100.0/24 via 192.0.2.2')
  await once('route add 2001:db8:1::/48 via 2001:db8::2')

  // Changes while it looks away are told of, too, and it looks again.
  const seen: string[] = []
  const route = '203.0.113.0/24 via 192.0.2.2 dev veth0'
  const looking = followNetwork(namespace, () =>
    seen.push(ip(`-n ${namespace} route show 203.0.113.0/24`).trim()),
  )
  ip(`-n ${namespace} route add ${route}`)
  await until('the first', () => seen.length === 1)
  ip(`-n ${namespace} route del ${route}`)
  await sleep(500)
  assert.deepEqual(seen, [route], 'it looks away')
  await until('the second', () => seen.length === 2)
  ip(`-n ${namespace} route add ${route}`)
  await until('the third', () => seen.length === 3)
  assert.deepEqual(seen, [route, '', route])
  looking.close()

  told = 0
  const changes = follow()
  const begun = performance.now()
  const routes = Array.from(
    { length: 20_000 },
    (_, i) => `route add 10.${i >> 8}.${i & 255}.0/24 via 192.0.2.2`,
  )
  ipBatch(namespace, routes)
  await until('some', () => told > 0)
  await sleep(200)
  assert.ok(told <= 2 + (2 * (performance.now() - begun)) / 1000, `told ${told} times`)
  changes.close()
  const before = told
  changes.close()
  ip(`-n ${namespace} link del veth0`)
  await sleep(1200)
  assert.equal(told, before)
  assert.throws(() => followNetwork('weir-W-missing', () => {}), SystemError)
})

test('where routes change all the time it looks less and less often', async t => {
  const namespace = `weir-W2-${process.pid}`
  ip(`netns add ${namespace}`)
  t.after(() => ip(`netns del ${namespace}`))
  ip(`-n ${namespace} link set lo up`)
  let told = 0
  const changes = followNetwork(namespace, () => told++)
  t.after(() => changes.close())
  const begun = performance.now()
  while (performance.now() - begun < 2500) {
    ip(`-n ${namespace} route replace blackhole 198.51.100.0/24 metric ${told}`)
    ip(`-n ${namespace} route flush type blackhole`)
    await sleep(20)
  }
  // After 50 ms, and 1.1 s later; the next would be 2.1 s after that.
  assert.equal(told, 2)
})

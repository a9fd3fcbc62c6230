/** The page as people see it: an agent with real traffic, and a real browser. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Browser, CHROMIUM } from '../support/browser.ts'
import { ip, makeLab, sendFlow, sink, startAgent, until } from '../support/lab.ts'

/** WEIR_PICTURES=FOLDER keeps what the browser shows. */
const pictures = process.env.WEIR_PICTURES

test('a browser shows what the agent sees', async context => {
  if (!Browser.isInstalled) {
    context.skip(
      `${CHROMIUM} is not installed (sh packaging/setup.sh test does): test/web/site.test.ts reads the page without`,
    )
    return
  }
  const lab = makeLab(context)
  // An interface with a name that is markup; '<' and '>' are allowed by the kernel, '/' and blanks are not.
  const evil = '<img>&<b>'
  ip(`-n ${lab.host.namespace} link add ${evil} type veth peer name other`)
  ip(`-n ${lab.host.namespace} link set ${evil} up`)
  // The browser is outside of the namespaces: it comes by a socket, which a small relay makes a port of this host.
  const socket = join(lab.folder, 'web.sock')
  const settings = `
    polling = 2
    sampling = 4
    sampling.10G = 4
    collector { ip = ${lab.peer.mgmt0.ipv4} }
    pcap { dev = eth0 }
    web { listen = ${socket} }`
  const agent = startAgent(context, lab, settings)
  await agent.line(/^eth0 is sampled/)
  await agent.line(/^the page is at/)
  const port = await relay(context, socket)
  const from = { address: lab.peer.eth0.ipv4, port: 40_001 }
  const to = { address: lab.host.eth0.ipv4, port: 9001 }
  sink(context, lab.host.namespace, to)
  const timer = setInterval(
    () => sendFlow(lab.peer.namespace, { from, to, payloadBytes: 958, packets: 100 }),
    200,
  )
  context.after(() => clearInterval(timer))

  const browser = await Browser.start(context)
  const shows = (what: string, expression: string) =>
    until(what, () => browser.value<boolean>(`Boolean(${expression})`))
  const looks = [
    { name: 'wide-light', width: 1280, height: 900, dark: false },
    { name: 'phone-dark', width: 390, height: 844, dark: true, phone: true },
  ]
  for (const { name, ...look } of looks) {
    await browser.open(`http://127.0.0.1:${port}/`, look)
    await shows('live state', `document.querySelector('#state')?.textContent === 'live'`)
    await shows(
      'the flow',
      `document.querySelector('#flows tbody').textContent.includes('${from.address}:40001')`,
    )
    await shows('its rate', `/\\d b\\/s|\\d [kM]b\\/s/.test(document.querySelector('#bits').textContent)`)
    // A name from outside is text.
    await shows(
      'the name',
      `[...document.querySelectorAll('#interfaces b')].some(b => b.textContent.startsWith(${JSON.stringify(evil)}))`,
    )
    assert.equal(await browser.value('document.querySelectorAll("img").length'), 0)
    // Nothing is wider than the window.
    assert.ok(
      await browser.value<boolean>('document.documentElement.scrollWidth <= innerWidth'),
      `${name} overflows`,
    )
    // Something is drawn, in the colours of the theme.
    await shows(
      'a plot',
      `(() => { const c = document.querySelector('[data-plot=traffic]'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i] > 200) n++; return n > 100 })()`,
    )
    const back = await browser.value<string>('getComputedStyle(document.body).backgroundColor')
    assert.equal(back, look.dark ? 'rgb(20, 23, 28)' : 'rgb(244, 246, 248)')
    if (pictures !== undefined) writeFileSync(join(pictures, `page-${name}.png`), await browser.picture(true))
  }
  // Another key, and a filter.
  await browser.value(
    `(() => { const by = document.querySelector('#by'); by.value = 'interfaces'; by.dispatchEvent(new Event('change')) })()`,
  )
  await shows('interface pairs', `document.querySelector('#flows thead').textContent.startsWith('inout')`)
  await browser.value(
    `(() => { const f = document.querySelector('#filter'); f.value = 'nothing-like-it'; f.dispatchEvent(new Event('input')) })()`,
  )
  await shows('no flow', `document.querySelector('#flows tbody').textContent === 'no flow fits'`)
  assert.deepEqual(browser.messages, [], 'errors on the console')
  const foreign = browser.requests.filter(url => !url.startsWith(`http://127.0.0.1:${port}/`))
  assert.deepEqual(foreign, [], 'addresses of others')
  const { exit } = await agent.stop()
  assert.equal(exit, 0)
})

/** Makes a Unix socket a port of 127.0.0.1 while the test runs. */
async function relay(scope: { after(cleanup: () => void): void }, path: string): Promise<number> {
  const { connect, createServer } = await import('node:net')
  const server = createServer(outside => {
    const inside = connect(path)
    outside.pipe(inside).pipe(outside)
    for (const socket of [outside, inside]) socket.on('error', () => {})
    outside.on('close', () => inside.destroy())
    inside.on('close', () => outside.destroy())
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  scope.after(() => void server.close())
  return (server.address() as { port: number }).port
}

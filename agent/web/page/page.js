// Draws what the agent tells every second. Everything from outside becomes text, never markup.

const SECONDS = 120
const id = name => document.getElementById(name)

// Numbers -----------------------------------------------------------------------------------------------------

function scaled(value, unit) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '-'
  let rest = Math.abs(value)
  let step = 0
  while (rest >= 999.5 && step < 5) {
    rest /= 1000
    step++
  }
  const decimals = rest >= 99.95 || (step === 0 && Number.isInteger(rest)) ? 0 : rest >= 9.995 ? 1 : 2
  return `${rest.toFixed(decimals)} ${'kMGTP'.slice(step - 1, step) || ''}${unit}`.trimEnd()
}

const bits = value => scaled(value, 'b/s')
const perSecond = value => scaled(value, '/s').replace(/ \/s$/, '/s')
const bytes = value => scaled(value, 'B')

function duration(nanoseconds) {
  if (nanoseconds === null || nanoseconds === undefined) return '-'
  const units = ['ns', 'µs', 'ms', 's']
  let rest = nanoseconds
  let step = 0
  while (rest >= 999.5 && step < 3) {
    rest /= 1000
    step++
  }
  return `${rest.toFixed(step === 0 || rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2)} ${units[step]}`
}

function part(value) {
  if (value === null || !Number.isFinite(value)) return '-'
  return value >= 1 ? '100 %' : `${(value * 100).toFixed(value < 0.0995 ? 1 : 0)} %`
}

function age(seconds) {
  if (seconds < 2) return 'now'
  return seconds < 120 ? `${Math.floor(seconds)} s ago` : `${Math.floor(seconds / 60)} min ago`
}

// Plots -------------------------------------------------------------------------------------------------------

/** Values of the last seconds by name, the newest last; null where there was none. */
const series = new Map()

function append(name, values, isPast) {
  let kept = series.get(name)
  if (kept === undefined || isPast) {
    kept = new Array(SECONDS).fill(null)
    series.set(name, kept)
  }
  for (const value of values) kept.push(value)
  kept.splice(0, kept.length - SECONDS)
}

/** A plot of one or two series from 0 to the greatest value; the scale is told in its corner. */
function draw(canvas, names, text) {
  const { clientWidth: width, clientHeight: height } = canvas
  if (width === 0) return
  const ratio = window.devicePixelRatio || 1
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio)
    canvas.height = Math.round(height * ratio)
  }
  const context = canvas.getContext('2d')
  context.setTransform(ratio, 0, 0, ratio, 0, 0)
  context.clearRect(0, 0, width, height)
  const lists = names.map(name => series.get(name) ?? [])
  const greatest = Math.max(0, ...lists.flat().filter(value => value !== null))
  const top = 16
  const y = value => height - 1 - (greatest === 0 ? 0 : (value / greatest) * (height - top - 1))
  const x = i => (i / (SECONDS - 1)) * width
  context.strokeStyle = resolved('--line')
  context.lineWidth = 1
  for (const level of [0, 0.5, 1]) {
    const at = Math.round(y(greatest * level)) + 0.5
    context.beginPath()
    context.moveTo(0, greatest === 0 ? height - 0.5 : at)
    context.lineTo(width, greatest === 0 ? height - 0.5 : at)
    context.stroke()
  }
  lists.forEach((list, number) => {
    const line = resolved(number === 0 ? '--first' : '--second')
    context.strokeStyle = line
    context.fillStyle = line
    context.lineWidth = 1.5
    let from = -1
    for (let i = 0; i <= list.length; i++) {
      const isThere = i < list.length && list[i] !== null
      if (isThere && from < 0) from = i
      if (isThere || from < 0) continue
      // A run of seconds with values: filled below, and a line on top.
      context.beginPath()
      for (let j = from; j < i; j++) context.lineTo(x(j), y(list[j]))
      if (i - from === 1) context.lineTo(x(from) + 2, y(list[from]))
      context.stroke()
      context.lineTo(x(i - 1), height)
      context.lineTo(x(from), height)
      context.globalAlpha = 0.15
      context.fill()
      context.globalAlpha = 1
      from = -1
    }
  })
  context.fillStyle = resolved('--faint')
  context.font = '11px system-ui, sans-serif'
  context.fillText(text(greatest), 2, 11)
}

/** Colours of the theme, as the style sheet has them. */
const resolvedColours = new Map()
function resolved(variable) {
  const known = resolvedColours.get(variable)
  if (known !== undefined) return known
  const colour = getComputedStyle(document.documentElement).getPropertyValue(variable).trim()
  resolvedColours.set(variable, colour)
  return colour
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  resolvedColours.clear()
  redraw()
})

// Tables ------------------------------------------------------------------------------------------------------

function element(tag, className, text) {
  const made = document.createElement(tag)
  if (className) made.className = className
  if (text !== undefined) made.textContent = text
  return made
}

/** A bar of a part of 1, as SVG: sizes of elements cannot be set by a style that the policy forbids. */
function barOf(value) {
  const NAMESPACE = 'http://www.w3.org/2000/svg'
  const svg = document.createElementNS(NAMESPACE, 'svg')
  svg.setAttribute('class', 'bar')
  svg.setAttribute('viewBox', '0 0 100 10')
  svg.setAttribute('preserveAspectRatio', 'none')
  const rectangle = document.createElementNS(NAMESPACE, 'rect')
  rectangle.setAttribute('width', String(Math.min(Math.max(value, 0), 1) * 100))
  rectangle.setAttribute('height', '10')
  svg.append(rectangle)
  return svg
}

/** Columns are [title, class]; cells are texts or elements. */
function fillTable(section, columns, rows, empty) {
  const head = element('tr')
  for (const [title, className] of columns) head.append(element('th', className, title))
  section.querySelector('thead').replaceChildren(head)
  const body = rows.map(cells => {
    const row = element('tr')
    cells.forEach((cell, i) => {
      const made = element('td', columns[i][1])
      if (cell instanceof Element) made.append(cell)
      else made.textContent = cell
      row.append(made)
    })
    return row
  })
  if (body.length === 0) {
    const row = element('tr')
    const cell = element('td', 'empty', empty)
    cell.colSpan = columns.length
    row.append(cell)
    body.push(row)
  }
  section.querySelector('tbody').replaceChildren(...body)
}

/** One item for each key, made once and kept: its canvas would flicker otherwise. */
function fillList(section, items, empty) {
  const list = section.querySelector('.list')
  const known = new Map([...list.children].map(child => [child.dataset.key, child]))
  const children = items.map(({ key, title, facts }) => {
    let item = known.get(key)
    if (item === undefined) {
      item = element('div', 'item')
      item.dataset.key = key
      item.append(element('h3'), element('canvas'))
    }
    item.querySelector('h3').replaceChildren(element('b', '', title), ...facts)
    return item
  })
  if (children.length === 0) children.push(element('p', 'empty', empty))
  const isSame =
    children.length === list.children.length && children.every((child, i) => child === list.children[i])
  if (!isSame) list.replaceChildren(...children)
}

// What is told ------------------------------------------------------------------------------------------------

let last

function show(told) {
  last = told
  id('agent').textContent = told.agent
  document.title = `weir ${told.agent}`
  id('bits').textContent = bits(told.total.bits)
  id('packets').textContent = perSecond(told.total.packets)
  id('drops').textContent = perSecond(told.total.drops)
  id('flow-count').textContent = String(told.flows.count)
  const by = id('by')
  if (by.options.length === 0) {
    for (const { name, title } of told.keys) by.append(new Option(title, name))
    by.value = told.flows.by
  }
  append('bits', told.seconds.bits, told.past)
  append('drops', told.seconds.drops, told.past)
  showFlows(told)
  showDrops(told)
  showQueues(told)
  showInterfaces(told)
  redraw()
}

function showFlows({ flows, total }) {
  const number = 'number'
  const columns = [
    ...flows.columns.map(title => [title, '']),
    ['bit rate', number],
    ['packets', `${number} narrow-out`],
    ['±', `${number} narrow-out`],
    ['share', 'share narrow-out'],
  ]
  const rows = flows.rows.map(row => [
    ...row.cells,
    bits(row.bits),
    perSecond(row.packets),
    part(row.error),
    barOf(total.bits > 0 ? row.bits / total.bits : 0),
  ])
  const empty = id('filter').value === '' ? 'no flow samples yet' : 'no flow fits'
  fillTable(id('flows'), columns, rows, empty)
}

function showDrops({ drops }) {
  const columns = [
    ['reason', ''],
    ['where', 'name'],
    ['rate', 'number'],
    ['packets', 'number narrow-out'],
    ['last', 'number'],
  ]
  const rows = drops.map(row => {
    const reason = element('span', '', row.detail === '' ? row.reason : `${row.reason} (${row.detail})`)
    reason.title = [row.place, row.lastPacket].filter(Boolean).join('\n')
    const where = row.output === '' ? row.input : `${row.input} → ${row.output}`.trim()
    return [reason, where, perSecond(row.perSecond), scaled(row.packets, ''), age(row.ageSeconds)]
  })
  fillTable(id('dropped'), columns, rows, 'no dropped packet was reported')
}

function showQueues({ queues, past }) {
  const items = queues.map(({ key, output, queue, delay, depth, delays, depths }) => {
    append(`depth ${key}`, depths, past)
    append(`delay ${key}`, delays, past)
    const facts = []
    if (depth) facts.push(element('span', 'first', `depth ${bytes(depth.p50)}, 99 % ${bytes(depth.p99)}`))
    if (delay)
      facts.push(element('span', 'second', `delay ${duration(delay.p50)}, 99 % ${duration(delay.p99)}`))
    return { key, title: queue === '' ? output : `${output} queue ${queue}`, facts }
  })
  fillList(id('queues'), items, 'no sample told a queue depth or a transit delay')
}

function showInterfaces({ ports, past }) {
  const items = ports.map(port => {
    const { key, name, up, speed, inBits, outBits, utilisation, errors, discards } = port
    append(`in ${key}`, port.ins, past)
    append(`out ${key}`, port.outs, past)
    const facts = [
      element('span', 'first', `in ${bits(inBits)}`),
      element('span', 'second', `out ${bits(outBits)}`),
      element(
        'span',
        errors + discards > 0 ? 'more bad' : 'more',
        `${speed > 0 ? `${part(utilisation)} of ${bits(speed)}, ` : ''}${errors} errors, ${discards} drops`,
      ),
    ]
    return { key, title: up ? name : `${name} (down)`, facts }
  })
  fillList(id('interfaces'), items, 'no counters yet')
}

function redraw() {
  if (last === undefined) return
  draw(document.querySelector('[data-plot=traffic]'), ['bits'], value => `peak ${bits(value)}`)
  draw(document.querySelector('[data-plot=drops]'), ['drops'], value => `peak ${perSecond(value)}`)
  for (const item of id('queues').querySelectorAll('.item')) {
    const { key } = item.dataset
    drawBoth(item.querySelector('canvas'), `depth ${key}`, `delay ${key}`)
  }
  for (const item of id('interfaces').querySelectorAll('.item')) {
    const { key } = item.dataset
    draw(item.querySelector('canvas'), [`in ${key}`, `out ${key}`], value => `peak ${bits(value)}`)
  }
}

/** Depth and delay have different units: each is drawn against its own greatest value. */
function drawBoth(canvas, depth, delay) {
  const greatest = name => Math.max(0, ...(series.get(name) ?? []).filter(value => value !== null))
  const [most, longest] = [greatest(depth), greatest(delay)]
  const factor = longest > 0 && most > 0 ? most / longest : 1
  series.set(
    'scaled',
    (series.get(delay) ?? []).map(value => (value === null ? null : value * factor)),
  )
  const isKnown = name => (series.get(name) ?? []).some(value => value !== null)
  const peaks = [...(isKnown(depth) ? [bytes(most)] : []), ...(isKnown(delay) ? [duration(longest)] : [])]
  draw(canvas, [depth, 'scaled'], () => `peak ${peaks.join(', ')}`)
}

// The connection ----------------------------------------------------------------------------------------------

let source

function connect() {
  source?.close()
  const query = new URLSearchParams({
    by: id('by').value,
    sort: id('sort').value,
    filter: id('filter').value,
  })
  source = new EventSource(`events?${query}`)
  source.onmessage = event => {
    id('state').textContent = 'live'
    id('state').className = 'live'
    show(JSON.parse(event.data))
  }
  source.onerror = () => {
    id('state').textContent = 'the agent does not answer, trying again'
    id('state').className = ''
  }
}

id('by').addEventListener('change', connect)
id('sort').addEventListener('change', connect)
let typing
id('filter').addEventListener('input', () => {
  clearTimeout(typing)
  typing = setTimeout(connect, 300)
})
addEventListener('resize', redraw)
// Nobody looks: nothing is asked for.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    source?.close()
    id('state').textContent = 'paused'
    id('state').className = ''
  } else connect()
})
connect()

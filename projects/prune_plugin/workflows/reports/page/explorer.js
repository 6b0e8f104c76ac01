// Plans in the page, by the arithmetic of methods/allocators/base.py (greedy) and methods/budgets/costs.py.
// Nothing is loaded: the scores and costs stand in the element `explorer-data`.
'use strict'

// Costs: `total(counts)` of the whole model, `marginal(counts)` of one more unit of each group

class ProductCost {
  // A sum of products of widths; shares are [term, dim, group, by how much a removed unit reduces it].
  constructor(data, sizes) {
    Object.assign(this, data)
    this.sizes = sizes
  }

  remaining(counts) {
    const widths = this.widths.map(row => row.slice())
    for (const [t, d, g, share] of this.shares) widths[t][d] -= share * (this.sizes[g] - counts[g])
    return widths
  }

  total(counts) {
    let sum = 0
    this.remaining(counts).forEach((widths, t) => {
      sum += this.multipliers[t] * widths.reduce((product, width) => product * width, 1)
    })
    return this.constant + sum
  }

  marginal(counts) {
    const widths = this.remaining(counts), result = new Float64Array(this.sizes.length)
    for (const [t, d, g, share] of this.shares) {
      let product = this.multipliers[t] * share
      widths[t].forEach((width, other) => { if (other !== d) product *= width })
      result[g] += product
    }
    return result
  }
}

class ScaledCost {
  constructor(cost, factor, dense) {
    Object.assign(this, { cost, factor, dense })
  }

  total(counts) {
    return this.dense - this.factor * (this.dense - this.cost.total(counts))
  }

  marginal(counts) {
    return this.cost.marginal(counts).map(value => this.factor * value)
  }
}

class UnitCost {
  total(counts) {
    return counts.reduce((sum, count) => sum + count, 0)
  }

  marginal(counts) {
    return new Float64Array(counts.length).fill(1)
  }
}

class TableCost {
  constructor({ base, factor, tables }) {
    Object.assign(this, { base, factor, tables })
  }

  total(counts) {
    let saved = 0
    this.tables.forEach(([widths, costs], g) => {
      let right = widths.findIndex(width => width >= counts[g])
      right = Math.min(Math.max(right < 0 ? widths.length : right, 1), widths.length - 1)
      const share = (counts[g] - widths[right - 1]) / (widths[right] - widths[right - 1])
      saved += costs.at(-1) - (costs[right - 1] + share * (costs[right] - costs[right - 1]))
    })
    return this.base - this.factor * saved
  }

  marginal() {
    return Float64Array.from(this.tables, ([widths, costs]) =>
      Math.max((costs.at(-1) - costs[0]) / (widths.at(-1) - widths[0]), 1e-12))
  }
}

function costOf(data, sizes) {
  if (data.tables) return new TableCost(data)
  const cost = new ProductCost(data, sizes)
  return data.factor === undefined ? cost : new ScaledCost(cost, data.factor, data.dense)
}

// Allocation

function stableOrder(priorities) {
  const order = Uint32Array.from(priorities, (_, i) => i)
  return order.sort((a, b) => priorities[a] - priorities[b] || a - b)
}

function floorsOf(groups, minKeep) {
  const floors = groups.map(group => Math.max(Math.min(minKeep, group.size), group.least))
  const wholes = new Set(groups.filter(group => group.whole).map(group => group.kind))
  for (const kind of wholes) {
    const layers = groups.map((_, g) => g).filter(g => groups[g].whole && groups[g].kind === kind)
    layers.sort((a, b) => groups[b].sum - groups[a].sum || a - b)
    layers.forEach((g, place) => { floors[g] = place < minKeep ? 1 : 0 })
  }
  return floors
}

function itemsOf(scores, costs, floors, roundTo) {
  const group = [], units = [], priorities = []
  scores.forEach((sorted, g) => {
    const removable = sorted.length - floors[g]
    for (let start = 0; start < removable;) {
      const chunk = start ? roundTo : sorted.length % roundTo || roundTo
      let sum = 0
      for (let i = start; i < start + chunk; i++) sum += sorted[i]
      group.push(g)
      units.push(chunk)
      priorities.push((roundTo > 1 ? sum / chunk : sum) / costs[g])
      start += chunk
    }
  })
  const order = stableOrder(priorities)
  return {
    group: Uint32Array.from(order, i => group[i]),
    units: Uint32Array.from(order, i => units[i]),
    priority: Float64Array.from(order, i => priorities[i]),
  }
}

// Units kept by each group; {error, most} where the floors don't allow the limit.
function greedy(scores, cost, limit, dense, floors, roundTo, perCost, remembered) {
  const sizes = scores.map(sorted => sorted.length)
  floors = floors.map((floor, g) => Math.min(Math.ceil(floor / roundTo) * roundTo, sizes[g]))
  const least = cost.total(floors)
  if (least > limit * (1 + 1e-12)) return { most: Math.max(1 - least / dense, 0) }
  const costs = perCost ? cost.marginal(sizes) : new Float64Array(sizes.length).fill(1)
  const items = remembered(() => itemsOf(scores, costs, floors, roundTo))
  const without = count => {
    const counts = sizes.slice()
    for (let i = 0; i < count; i++) counts[items.group[i]] -= items.units[i]
    return counts
  }
  let low = 0, high = items.group.length
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (cost.total(without(middle)) > limit) low = middle
    else high = middle - 1
  }
  const counts = without(low)
  let rest = Array.from(items.group.subarray(low), (_, i) => low + i)
  for (let gap; rest.length && (gap = cost.total(counts) - limit) > 0;) {
    const marginal = cost.marginal(counts)
    const prices = rest.map(i => marginal[items.group[i]] * items.units[i])
    const cheapest = prices.reduce((a, b) => Math.min(a, b), Infinity)
    const fits = rest.map((_, place) => place).filter(place => prices[place] < gap + cheapest)
    let sum = 0, taken = 0
    for (const place of fits) if ((sum += prices[place]) <= gap) taken++
    const gone = new Set(fits.slice(0, Math.max(1, taken)))
    gone.forEach(place => { counts[items.group[rest[place]]] -= items.units[rest[place]] })
    rest = rest.filter((_, place) => !gone.has(place))
  }
  return { counts }
}

class Explorer {
  constructor(data) {
    Object.assign(this, data)
    const bytes = Uint8Array.from(atob(data.scores), letter => letter.charCodeAt(0))
    const all = new Float64Array(bytes.buffer)
    this.sizes = this.groups.map(group => group.size)
    let start = 0
    this.scores = this.sizes.map(size => all.subarray(start, start += size))
    this.groups.forEach((group, g) => { group.sum = this.scores[g].reduce((sum, x) => sum + x, 0) })
    this.models = Object.fromEntries(
      Object.entries(data.costs).map(([name, cost]) => [name, costOf(cost, this.sizes)]))
    this.known = new Map()
  }

  // {counts, kept units of each group} or {most}, the largest ratio that the floors allow.
  plan({ budget, ratio, minKeep, roundTo, allocator }) {
    const floors = floorsOf(this.groups, minKeep), perCost = allocator === 'Knapsack'
    const key = [budget, minKeep, roundTo, allocator].join()
    const run = (members, cost, limit, dense) => greedy(
      members.map(g => this.scores[g]), cost, limit, dense, members.map(g => floors[g]), roundTo,
      perCost, make => {
        const own = `${key} ${members[0]} ${members.length}`
        if (!this.known.has(own)) this.known.set(own, make())
        return this.known.get(own)
      })
    const all = this.groups.map((_, g) => g)
    if (budget !== 'units') {
      const dense = this.models[budget].total(this.sizes)
      return run(all, this.models[budget], dense * (1 - ratio), dense)
    }
    const counts = new Array(this.groups.length)
    for (const kind of new Set(this.groups.map(group => group.kind))) {
      const members = all.filter(g => this.groups[g].kind === kind)
      const dense = members.reduce((sum, g) => sum + this.sizes[g], 0)
      const found = run(members, new UnitCost(), Math.floor(dense * (1 - ratio) + 1e-9), dense)
      if (!found.counts) return found
      members.forEach((g, place) => { counts[g] = found.counts[place] })
    }
    return { counts }
  }

  // What would be left of each quantity, in its unit.
  predicted(counts) {
    const found = Object.fromEntries(Object.entries(this.models).map(([name, cost]) => {
      const dense = this.dense[name], whole = cost.total(this.sizes)
      return [name, dense && whole ? dense * cost.total(counts) / whole : cost.total(counts)]
    }))
    const latency = this.models.latency ? null : this.betweenMeasured(found.flops)
    return latency === null ? found : { ...found, between: latency }
  }

  // The time of so many FLOPs, on the line between the two models measured next to it; null outside.
  betweenMeasured(flops) {
    const known = this.points.filter(point => point.flops && point.latency)
    known.sort((a, b) => a.flops - b.flops)
    const right = known.findIndex(point => point.flops >= flops)
    if (right < 0 || (!right && known[0].flops > flops)) return null
    const [a, b] = [known[Math.max(right - 1, 0)], known[right]]
    const share = a === b ? 1 : (flops - a.flops) / (b.flops - a.flops)
    return a.latency + share * (b.latency - a.latency)
  }
}

// The page

const NAMES = {
  params: 'parameters', flops: 'FLOPs', latency: 'latency, ms', between: 'latency, ms, between measured models',
}
const MOST_LAYERS = 200, BINS = 64, FIRST = 8
const SVG = 'http://www.w3.org/2000/svg'

function element(tag, attributes = {}, ...children) {
  const svg = ['svg', 'rect', 'line', 'circle', 'polyline', 'text', 'title'].includes(tag)
  const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

function number(value) {
  if (value === null || value === undefined) return '–'
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : String(+value.toPrecision(4))
}

const short = value => value && Math.abs(value) < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(2))

const percent = share => `${(100 * share).toFixed(1)} %`

function bar(name, kept, size) {
  const share = size ? kept / size : 1
  return element('li', {}, element('span', {}, name),
    element('svg', { class: 'bar', viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': true },
      element('rect', { class: 'track', width: 100, height: 8 }),
      element('rect', { class: 'fill', width: (100 * share).toFixed(2), height: 8 })),
    element('span', {}, `${kept.toLocaleString('en')} of ${size.toLocaleString('en')} (${percent(share)})`))
}

function table(header, rows) {
  const line = (tag, cells) => element('tr', { role: 'row' }, ...cells.map((cell, i) =>
    tag === 'th' ? element('th', { scope: 'col', role: 'columnheader' }, cell)
      : i ? element('td', { role: 'cell', 'data-label': header[i] }, cell)
        : element('th', { scope: 'row', role: 'rowheader' }, cell)))
  return element('table', { role: 'table' }, element('thead', { role: 'rowgroup' }, line('th', header)),
    element('tbody', { role: 'rowgroup' }, ...rows.map(cells => line('td', cells))))
}

class Page {
  constructor(explorer) {
    this.explorer = explorer
    this.fields = Object.fromEntries(['budget', 'allocator', 'ratio', 'exact', 'minKeep', 'roundTo'].map(
      name => [name, document.getElementById(`x-${name}`)]))
    const { budget, allocator, ratio, exact, minKeep, roundTo } = this.fields
    for (const name of [...Object.keys(explorer.models), 'units']) {
      budget.append(element('option', { value: name }, NAMES[name] || name))
    }
    budget.value = explorer.budget in explorer.models || explorer.budget === 'units' ? explorer.budget : 'params'
    allocator.value = explorer.allocator === 'Global' ? 'Global' : 'Knapsack'
    ratio.value = exact.value = explorer.ratio
    minKeep.value = explorer.minKeep
    roundTo.value = explorer.roundTo
    ratio.addEventListener('input', () => { exact.value = ratio.value; this.update() })
    exact.addEventListener('input', () => { ratio.value = exact.value; this.update() })
    for (const field of [budget, allocator, minKeep, roundTo]) field.addEventListener('input', () => this.update())
    document.getElementById('x-copy').addEventListener('click', () => this.copy())
    this.update()
  }

  asked() {
    const { budget, allocator, exact, minKeep, roundTo } = this.fields
    const whole = (field, least) => Math.max(Math.floor(Number(field.value)) || 0, least)
    return {
      budget: budget.value, allocator: allocator.value, ratio: Number(exact.value),
      minKeep: whole(minKeep, 0), roundTo: whole(roundTo, 1),
    }
  }

  show(id, ...children) {
    document.getElementById(id).replaceChildren(...children)
  }

  update() {
    const asked = this.asked(), explorer = this.explorer
    if (!(asked.ratio > 0 && asked.ratio < 1)) {
      this.show('x-said', 'A ratio is a number between 0 and 1, the fraction removed.')
      return
    }
    const { counts, most } = explorer.plan(asked)
    if (!counts) {
      this.show('x-said', `With these floors at most ${percent(most)} can be removed.`)
      return
    }
    this.counts = counts
    const kept = counts.reduce((sum, count) => sum + count, 0)
    const units = explorer.sizes.reduce((sum, size) => sum + size, 0)
    this.show('x-said', `${(units - kept).toLocaleString('en')} of ${units.toLocaleString('en')} units would go.`)
    this.sizes(counts)
    this.kinds(counts)
    this.layers(counts)
    this.histogram(counts)
    this.measured(counts)
    this.show('x-config', this.lines(asked))
  }

  sizes(counts) {
    const { dense } = this.explorer
    const rows = Object.entries(this.explorer.predicted(counts)).map(([name, left]) => {
      const known = name === 'between' ? dense.latency : dense[name]
      const whole = known || this.explorer.models[name].total(this.explorer.sizes)
      return [NAMES[name], number(whole), number(left), percent(1 - left / whole)]
    })
    this.show('x-sizes', table(['predicted', 'dense', 'left', 'removed'], rows))
  }

  kinds(counts) {
    const totals = new Map()
    this.explorer.groups.forEach((group, g) => {
      const [kept, size] = totals.get(group.kind) || [0, 0]
      totals.set(group.kind, [kept + counts[g], size + group.size])
    })
    this.show('x-kinds', ...Array.from(totals, ([kind, [kept, size]]) => bar(kind, kept, size)))
  }

  layers(counts) {
    const { groups } = this.explorer, order = groups.map((_, g) => g)
    const cut = order.slice().sort((a, b) => counts[a] / groups[a].size - counts[b] / groups[b].size || a - b)
    const shown = groups.length > MOST_LAYERS ? cut.slice(0, MOST_LAYERS).sort((a, b) => a - b) : order
    const title = groups.length > MOST_LAYERS ? `the ${MOST_LAYERS} groups of ${groups.length} that lose most` : 'every group'
    this.show('x-layers-title', `Kept by ${title}`)
    this.show('x-layers', ...shown.map(g => bar(groups[g].name, counts[g], groups[g].size)))
    const first = cut.filter(g => counts[g] < groups[g].size).slice(0, FIRST)
    this.show('x-first', ...first.map(g => element('li', {}, `${groups[g].name} (${groups[g].kind}): ${percent(1 - counts[g] / groups[g].size)} removed`)))
  }

  histogram(counts) {
    const { scores, groups } = this.explorer, values = [[], []]
    scores.forEach((sorted, g) => sorted.forEach((score, i) => {
      if (score > 0) values[i < groups[g].size - counts[g] ? 0 : 1].push(Math.log10(score))
    }))
    const least = list => list.reduce((a, b) => Math.min(a, b), Infinity)
    const low = Math.min(...values.map(least)), high = -Math.min(...values.map(list => least(list.map(x => -x))))
    if (!(high > low)) return this.show('x-scores')
    const bins = values.map(list => {
      const found = new Array(BINS).fill(0)
      list.forEach(x => { found[Math.min(BINS - 1, Math.floor(BINS * (x - low) / (high - low)))]++ })
      return found
    })
    const top = Math.max(...bins[0].map((count, i) => count + bins[1][i]))
    const bars = bins[0].flatMap((gone, i) => {
      const [a, b] = [gone, bins[1][i]].map(count => 100 * count / top)
      return [
        element('rect', { class: 'fill', x: i * 6, y: 100 - a - b, width: 5, height: b }),
        element('rect', { class: 'gone', x: i * 6, y: 100 - a, width: 5, height: a }),
      ]
    })
    const text = (x, anchor, said) => element('text', { x, y: 114, 'text-anchor': anchor }, said)
    this.show('x-scores', element('svg', {
      viewBox: `0 0 ${6 * BINS} 118`, role: 'img',
      'aria-label': 'Histogram of the scores of all units, on a logarithmic axis: removed and kept ones',
    }, ...bars, text(0, 'start', short(10 ** low)), text(6 * BINS, 'end', short(10 ** high))))
  }

  measured(counts) {
    const { points, headline, dense } = this.explorer, charts = []
    for (const [name, better] of Object.entries(headline)) {
      const known = points.filter(point => point.metrics && name in point.metrics && point.params)
      if (known.length < 2) continue
      const values = known.map(point => point.metrics[name])
      const low = Math.min(0, ...values), high = Math.max(0, ...values)
      const x = params => 300 * params / dense.params
      const y = value => 110 - 100 * (value - low) / (high - low || 1)
      const here = x(this.explorer.predicted(counts).params)
      const sorted = known.filter(p => !p.trained).sort((a, b) => b.params - a.params)
      charts.push(element('figure', {},
        element('figcaption', {}, `${name} (${better === 'max' ? 'higher' : 'lower'} is better), against parameters left`),
        element('svg', { viewBox: '-32 -4 340 130', role: 'img', 'aria-label': `${name} of measured models against parameters` },
          element('line', { class: 'axis', x1: 0, y1: y(0), x2: 300, y2: y(0) }),
          element('polyline', { class: 'curve', points: sorted.map(p => `${x(p.params)},${y(p.metrics[name])}`).join(' ') }),
          ...known.map(p => element('circle', { class: p.trained ? 'trained' : 'point', cx: x(p.params), cy: y(p.metrics[name]), r: 3 },
            element('title', {}, `${p.label}: ${number(p.metrics[name])}`))),
          element('line', { class: 'here', x1: here, y1: 0, x2: here, y2: 110 }),
          element('text', { x: -3, y: y(high) + 3, 'text-anchor': 'end' }, short(high)),
          element('text', { x: -3, y: y(low) + 3, 'text-anchor': 'end' }, short(low)),
          element('line', { class: 'axis', x1: 0, y1: y(low), x2: 0, y2: y(high) }),
          element('text', { x: 0, y: 122, 'text-anchor': 'start' }, '0'),
          element('text', { x: 300, y: 122, 'text-anchor': 'end' }, `${number(dense.params)} parameters`))))
    }
    this.show('x-measured', ...charts)
  }

  lines({ budget, allocator, ratio, minKeep, roundTo }) {
    const more = [`prune_cfg.allocator.type=${allocator}`, `prune_cfg.budget.type=${budget}`]
    if (minKeep !== 1) more.push(`prune_cfg.min_keep=${minKeep}`)
    if (roundTo !== 1) more.push(`prune_cfg.round_to=${roundTo}`)
    return `prune_cfg = dict(..., allocator=dict(type='${allocator}'), min_keep=${minKeep}, round_to=${roundTo},\n`
      + `                 budget=dict(type='${budget}', ratio=${ratio}))\n\n`
      + `${this.explorer.command} --pruning-ratio ${ratio} --cfg-options ${more.join(' ')}`
  }

  async copy() {
    await navigator.clipboard.writeText(document.getElementById('x-config').textContent)
  }
}

const data = document.getElementById('explorer-data')
if (data) {
  window.explorer = new Explorer(JSON.parse(data.textContent))
  window.page = new Page(window.explorer)
}

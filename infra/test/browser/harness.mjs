// A person with a Chromium, the pages they see, and the installation under test: the Go test that
// started the browser's test answers what `ask` asks.
import assert from 'node:assert/strict'
import {test} from 'node:test'
import axe from 'axe-core'
import {chromium} from 'playwright-core'

// kind: stand-in, doorkeeper or https · control: where `ask` asks · publicURL: of the callback server
// login, password: of the provider's user · screens: folder for screenshots, or empty
// patience: how long, in milliseconds, a page may take until it shows a fact
export const world = JSON.parse(process.env.WORLD)

const patience = 30_000

export async function ask(what, question = {}) {
  const answer = await fetch(`${world.control}/${what}`, {method: 'POST', body: JSON.stringify(question)})
  const text = await answer.text()
  assert.ok(answer.ok, `${what}: ${text}`)
  return JSON.parse(text)
}

// figure puts a number into the log of the test.
export const figure = text => console.log(`figure: ${text}`)

export const invite = async (connection, ...options) => (await ask('invite', {connection, options})).url

export async function openBrowser() {
  return chromium.launch({executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-quic',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP *.test 127.0.0.1']})
}

export class Person {
  // arrive starts with an empty browser profile.
  static async arrive(browser, options = {}) {
    const p = new Person()
    p.context = await browser.newContext({ignoreHTTPSErrors: true, viewport: devices.desktop, ...options})
    p.context.setDefaultTimeout(patience)
    p.requests = []
    p.complaints = []
    p.context.on('request', request => p.requests.push(request))
    p.context.on('console', message => {
      if (/Content Security Policy|Refused|blocked/i.test(message.text())) p.complaints.push(message.text())
    })
    p.page = await p.context.newPage()
    return p
  }

  // counts lets every page of the console count the bytes of each event of its stream: window.updates.
  counts() {
    return this.context.addInitScript(() => {
      window.updates = []
      window.EventSource = class extends EventSource {
        constructor(address) {
          super(address)
          this.addEventListener('message', e => window.updates.push('data: \n\n'.length + new TextEncoder().encode(e.data).length))
        }
      }
    })
  }

  async leave() {
    const hosts = new Set(this.requests.map(r => new URL(r.url())).filter(u => u.protocol !== 'about:').map(u => u.origin))
    const strangers = [...hosts].filter(origin => ![new URL(world.publicURL).origin, ...world.providers].includes(origin))
    await this.context.close()
    assert.deepEqual(strangers, [], 'requests to third parties')
    assert.deepEqual(this.complaints, [], 'complaints in the console')
  }

  tab() { return this.context.newPage() }
}

// sees waits for the page with that heading.
export async function sees(page, heading) {
  try {
    await page.getByRole('heading', {level: 1, name: heading, exact: true}).waitFor()
  } catch (cause) {
    throw new Error(`no page "${heading}" at ${new URL(page.url()).pathname}, but:\n${await page.locator('body').innerText().catch(() => cause)}`)
  }
}

export const button = page => page.getByRole('button', {name: 'Continue to Procore'})

// step is a test that the later ones rely on.
let failed
export function step(name, does) {
  test(name, async t => {
    if (failed) return t.skip(`after "${failed}" failed`)
    failed = name
    await does()
    failed = ''
  })
}

// openLive opens a page of the console, and waits until it is kept up to date.
export async function openLive(page, address) {
  await page.goto(address)
  await page.getByText('live', {exact: true}).waitFor()
  await page.evaluate(() => { window.stayed = true })
}

// until waits for a fact of the live page; a page that was loaded again would have lost the mark.
export async function until(page, what, fact, limit = world.patience ?? 240_000) {
  const end = Date.now() + limit
  while (!await fact()) {
    if (Date.now() > end) throw new Error(`not seen: ${what}\n${await page.locator('main').innerText()}`)
    await page.waitForTimeout(100)
  }
  assert.equal(await page.evaluate(() => window.stayed), true, 'the page was loaded again')
}

// shownLink is the consent link in the open dialog.
export async function shownLink(page) {
  const link = await page.locator('#result code').innerText()
  assert.match(link, /\/connect\/[A-Z2-7]{52}$/)
  return link
}

// linkFrom presses a button that shows a consent link, and returns the link.
export async function linkFrom(page, button) {
  await button.click()
  const link = await shownLink(page)
  await page.locator('#result [data-close]').click()
  await until(page, 'the link leaves the page', async () => !(await page.content()).includes(link))
  return link
}

// start opens the link, presses the button, and signs in where asked. It ends at the provider's consent page.
export async function start(page, link, heading = 'Connect your Procore account') {
  await page.goto(link)
  await sees(page, heading)
  await button(page).click()
  await signIn(page)
}

export async function signIn(page) {
  const allowing = page.locator(world.kind === 'doorkeeper' ? 'form[action$="/oauth/authorize"]' : '#allow').first()
  const form = page.locator(world.kind === 'doorkeeper' ? '#login' : '#sign-in')
  await allowing.or(form).first().waitFor()
  if (await form.count() === 0) return
  if (world.kind === 'doorkeeper') {
    await page.getByLabel('Login').fill(world.login)
    await page.getByLabel('Password').fill(world.password)
    await page.getByRole('button', {name: 'Log in'}).click()
  } else {
    await form.click()
  }
  await allowing.waitFor()
}

export const allowing = page => world.kind === 'doorkeeper' ? page.getByRole('button', {name: 'Authorize'}) : page.locator('#allow')

export const denying = page => world.kind === 'doorkeeper' ? page.getByRole('button', {name: 'Deny'}) : page.locator('#deny')

export const devices = {phone: {width: 390, height: 844}, desktop: {width: 1280, height: 800}}

// reachesButton checks that nobody has to scroll to find the button.
export async function reachesButton(page) {
  for (const viewport of [{width: 390, height: 664}, {width: 320, height: 640}]) {
    await page.setViewportSize(viewport)
    const {y, height} = await button(page).boundingBox()
    assert.ok(y + height <= viewport.height, `the button ends at ${y + height} of ${viewport.height} pixels`)
  }
  await page.setViewportSize(devices.desktop)
}

// examine lets axe look at the page, again if it could not judge a page that changed meanwhile.
async function examine(page) {
  for (let tries = 3; ; tries--) {
    const {violations, incomplete, passes} = await page.evaluate(`${axe.source}; axe.run(document)`)
    // axe cannot judge text in a picture, or beside the sign of a tone; their colors are those of other text.
    for (const i of incomplete) i.nodes = i.nodes.filter(n => !n.html.startsWith('<text ') && !n.any.some(c => c.message.includes('pseudo element')))
    const faults = [...violations, ...incomplete.filter(i => i.nodes.length)].map(({id, help, nodes}) =>
      ({id, help, nodes: nodes.map(n => [n.html, ...n.any.map(c => c.message)].join('\n'))}))
    if (!faults.length || violations.length || tries === 1) return {faults, passes}
  }
}

// everyLook shows the page on a phone and on a desktop, light and dark.
async function everyLook(page, look) {
  for (const [device, viewport] of Object.entries(devices)) {
    await page.setViewportSize(viewport)
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({colorScheme})
      await look(`${device}-${colorScheme}`, viewport)
    }
  }
  await page.setViewportSize(devices.desktop)
  await page.emulateMedia({colorScheme: null})
}

// picture keeps screenshots of what one sees first.
export const picture = (page, name) => everyLook(page, look => page.screenshot({path: `${world.screens}/${name}-${look}.png`}))

// inspect keeps screenshots of the page, phone and desktop, light and dark, and lets axe look at each.
export const inspected = new Set()

export async function inspect(page, name) {
  if (!world.screens) return
  await everyLook(page, async (look, viewport) => {
    // axe cannot judge what a button covers that stays in view, so it looks at the page as a whole.
    const height = await page.evaluate(() => document.documentElement.scrollHeight)
    await page.setViewportSize({width: viewport.width, height: Math.max(3000, height + 500)})
    const {faults, passes} = await examine(page)
    assert.deepEqual(faults, [], `axe on ${name}, ${look}`)
    assert.ok(passes.length > 10, `axe passed ${passes.length} rules only`)
    await page.setViewportSize(viewport)
    await page.screenshot({path: `${world.screens}/${name}-${look}.png`, fullPage: true})
  })
  // WCAG 2.2 criterion 1.4.10: no sideways scrolling at 320 pixels; 1.4.4: text of twice the size
  await page.setViewportSize({width: 320, height: 640})
  for (const size of ['100%', '200%']) {
    const overflow = await page.evaluate(size => {
      document.documentElement.style.fontSize = size
      return document.documentElement.scrollWidth - document.documentElement.clientWidth
    }, size)
    assert.equal(overflow, 0, `${name} is wider than a small phone, text at ${size}`)
  }
  await page.evaluate(() => { document.documentElement.style.fontSize = '' })
  await page.setViewportSize(devices.desktop)
  inspected.add(name)
}

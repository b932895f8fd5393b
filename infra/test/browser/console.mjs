// Uses the console of `tokenturn serve --demo` as a newcomer does: connects, watches, breaks everything, and repairs it.
import assert from 'node:assert/strict'
import {after, before} from 'node:test'
import {allowing, devices, figure, inspect, linkFrom, openBrowser, openLive, Person, sees, start, step, until, world} from './harness.mjs'

const connection = 'demo/acme'
const row = page => page.locator(`#rows tr[data-row="${connection}"]`)
const generation = async page => Number(/generation \d+\.(\d+)/.exec(await row(page).innerText())?.[1] ?? 0)

world.providers = [new URL(world.emptyURL).origin]
let browser, pat

before(async () => {
  browser = await openBrowser()
  pat = await Person.arrive(browser)
  await pat.counts()
})
after(async () => {
  try {
    await pat.leave()
  } finally {
    await browser.close()
  }
})

async function allow(link, heading) {
  const tab = await pat.tab()
  await start(tab, link, heading)
  world.providers.push(new URL(tab.url()).origin) // the stand-in
  await allowing(tab).click()
  await sees(tab, 'Procore is connected')
  await tab.close()
}

// film takes pictures for README's moving one, until the function that it returns is called.
function film(page) {
  let over = false
  const done = (async () => {
    await page.setViewportSize({width: 960, height: 800})
    for (let i = 1000; ; i++) {
      const last = over
      await page.screenshot({path: `${world.screens}/frame-${i}.png`})
      if (last) break
      await page.waitForTimeout(400)
    }
    await page.screenshot({path: `${world.screens}/overview.png`})
    await page.setViewportSize(devices.desktop)
  })()
  return async () => {
    over = true
    await done
  }
}

step('the three steps of an empty console', async () => {
  const page = await pat.tab()
  await page.goto(world.emptyURL)
  await page.getByText('app set').first().waitFor()
  await inspect(page, 'console-empty')
  await page.close()
})

step('connect, and see generation 1.2 without a reload', async () => {
  const {page} = pat
  await openLive(page, world.publicURL)
  await inspect(page, 'console-waiting')
  assert.equal(await page.locator('#panel button:enabled').count(), 0, 'an experiment can start before anything is connected')
  await allow(world.consentLink)
  await until(page, 'active', async () => (await row(page).innerText()).includes('active'))
  await until(page, 'generation 1.2', async () => await generation(page) >= 2)
  await inspect(page, 'console-active')
})

step('find and filter', async () => {
  const page = await pat.tab()
  await page.goto(world.publicURL)
  await page.getByLabel('Find').fill('nobody')
  await row(page).waitFor({state: 'detached'})
  await page.getByLabel('Find').fill('acm')
  await row(page).waitFor()
  await page.getByLabel('Show').selectOption('disconnected')
  await row(page).waitFor({state: 'detached'})
  await page.close()
})

step('tabs that nobody sees take no connection', async () => {
  const tabs = []
  for (let i = 0; i < 8; i++) {
    const page = await pat.tab()
    tabs.push(page)
    await page.goto(world.publicURL)
    await page.getByText('live', {exact: true}).waitFor()
    await page.evaluate(() => { // a headless browser shows all tabs
      Object.defineProperty(document, 'hidden', {value: true, configurable: true})
      document.dispatchEvent(new Event('visibilitychange'))
    })
    await page.getByText('not live', {exact: true}).waitFor()
  }
  await tabs[0].evaluate(() => {
    delete document.hidden
    document.dispatchEvent(new Event('visibilitychange'))
  })
  await tabs[0].getByText('live', {exact: true}).waitFor()
  for (const page of tabs) await page.close()
})

step('one connection: its life, how to read it, rotate now, invite again', async () => {
  const page = await pat.tab()
  await openLive(page, `${world.publicURL}/connections/${connection}`)
  assert.ok(await page.locator('svg.life .bar-of-generation').count() >= 2, 'bars of token life')
  for (const language of ['Go', 'Python', 'TypeScript', 'bash']) await page.getByRole('heading', {level: 3, name: language, exact: true}).waitFor()
  const before = Number(/generation \d+\.(\d+)/.exec(await page.locator('#facts').innerText())[1])
  await page.getByRole('button', {name: 'Rotate now'}).click()
  await until(page, 'the next generation', async () => Number(/generation \d+\.(\d+)/.exec(await page.locator('#facts').innerText())[1]) > before)
  await page.locator('#result [data-close]').click()
  await linkFrom(page, page.getByRole('button', {name: 'Invite again'}))
  await inspect(page, 'console-connection')
  await page.close()
})

step('every answer in the dialog can be closed', async () => {
  const page = await pat.tab()
  await openLive(page, `${world.publicURL}/connections/${connection}`)
  const answers = async (text) => {
    await page.getByRole('button', {name: 'Rotate now'}).click()
    await page.locator('#result').getByText(text).waitFor()
    await page.locator('#result').getByRole('button', {name: 'Close', exact: true}).click()
    await page.locator('#result').waitFor({state: 'hidden'})
  }
  await page.route('**/rotate', route => route.abort())
  await answers('tokenturn does not answer')
  await page.unroute('**/rotate')
  await page.evaluate(() => { document.querySelector('#act [name=csrf]').value = 'x' })
  await answers('This form is not from a page that this browser has open')
  await page.close()
})

step('every experiment recovers', async () => {
  const {page} = pat
  const names = await page.locator('#panel li.panel').evaluateAll(cards => cards.map(c => c.id))
  assert.ok(names.length >= 13, `${names.length} experiments`)
  for (const name of names) {
    const card = page.locator(`#${name}`)
    await until(page, `${name} can start`, async () => await card.locator('button:enabled').count() === 1)
    const filmed = name === 'experiment-lose-answer' ? film(page) : undefined
    await card.locator('button').click()
    await until(page, `${name} runs`, async () => await card.locator('ol.steps li').count() > 0)
    const lost = name === 'experiment-revoke' || name === 'experiment-lose-for-good'
    if (lost) {
      await until(page, 'it needs a person', async () => await page.locator('#attention button').count() > 0)
      await inspect(page, name === 'experiment-revoke' ? 'console-needs-consent' : 'console-lost')
      const link = await linkFrom(page, page.locator('#attention').getByRole('button', {name: 'consent link'}))
      await allow(link, 'Reconnect your Procore account')
    }
    await until(page, `${name} is over`, async () => {
      const steps = await card.locator('ol.steps li').count()
      return await card.locator('.notice.bad').count() > 0 || await card.locator('ol.steps li.done').count() === steps
    })
    assert.equal(await card.locator('.notice.bad').count(), 0, `${name}: ${await card.innerText()}`)
    await filmed?.()
  }
  await until(page, 'active', async () => (await row(page).innerText()).includes('active'))
  const largest = Math.max(...await page.evaluate(() => window.updates))
  figure(`the largest update of the demo has ${largest} bytes`)
  assert.ok(largest < 20_000, `an update of ${largest} bytes`)
  await inspect(page, 'console-after')
})

step('works without script', async () => {
  const kim = await Person.arrive(browser, {javaScriptEnabled: false, viewport: devices.phone})
  await kim.page.goto(world.publicURL)
  await kim.page.getByLabel('Find').fill('acme')
  await kim.page.getByRole('button', {name: 'Apply'}).click()
  await kim.page.getByRole('link', {name: connection}).first().click()
  await sees(kim.page, connection)
  await kim.page.getByRole('button', {name: 'Invite again'}).click()
  assert.match(await kim.page.locator('#answer code').innerText(), /\/connect\//)
  await kim.leave()
})

step('disconnect asks for the name', async () => {
  const page = await pat.tab()
  await openLive(page, `${world.publicURL}/connections/${connection}`)
  await page.getByText('Disconnect', {exact: true}).first().click()
  await page.getByLabel(`Type ${connection} to disconnect it`).fill('demo/other')
  await page.getByRole('button', {name: 'Disconnect', exact: true}).click()
  await page.locator('#result').getByRole('alert').waitFor()
  await page.locator('#result [data-close]').click()
  await page.getByLabel(`Type ${connection} to disconnect it`).fill(connection)
  await page.getByRole('button', {name: 'Disconnect', exact: true}).click()
  await until(page, 'disconnected', async () => (await page.locator('#title').innerText()).includes('disconnected'))
  await inspect(page, 'console-disconnected')
  await page.close()
})

// Uses the console as an operator does: each button that repairs something, at this machine and from elsewhere, with
// the mouse, the keyboard alone, and without script.
import assert from 'node:assert/strict'
import {existsSync} from 'node:fs'
import {after, before} from 'node:test'
import {ask, inspect, linkFrom, openBrowser, openLive, Person, reachesButton, sees, shownLink, step, until, world} from './harness.mjs'

// What other sites do, and the runbooks at GitHub, is answered here.
const evil = `http://evil.test:${new URL(world.publicURL).port}`
world.providers = [world.consoleURL, evil, 'https://github.com']
let browser, pat

before(async () => {
  browser = await openBrowser()
  pat = await Person.arrive(browser)
  await pat.context.grantPermissions(['clipboard-read', 'clipboard-write'], {origin: world.publicURL})
  await ask('import', {connection: 'demo/acme'})
})
after(async () => {
  try {
    await pat.leave()
  } finally {
    await browser.close()
  }
})

const at = connection => `${world.publicURL}/connections/${connection}`
const status = async (page, words) => (await page.locator('#title').innerText()).includes(words)
const card = (page, connection) => page.locator('#attention li').filter({has: page.getByRole('link', {name: connection, exact: true})})
const generationOf = async page => Number(/generation \d+\.(\d+)/.exec(await page.locator('#facts').innerText())[1])
const clipboard = page => page.evaluate(() => navigator.clipboard.readText())

// answer is what the dialog says; it is closed afterwards.
async function answer(page, text, role) {
  const dialog = page.locator('#result')
  await (role ? dialog.getByRole(role) : dialog).getByText(text).waitFor().catch(async () => {
    throw new Error(`no "${text}" in the dialog, but "${await dialog.textContent()}", at ${page.url()}`)
  })
  await dialog.getByRole('button', {name: 'Close', exact: true}).click()
  await dialog.waitFor({state: 'hidden'})
}

// tabTo moves the focus with the keyboard, and checks that one sees where it is.
async function tabTo(page, target) {
  for (let presses = 0; presses < 60; presses++) {
    await page.keyboard.press('Tab')
    if (!await target.evaluate(e => e === document.activeElement)) continue
    const width = await target.evaluate(e => parseFloat(getComputedStyle(e).outlineWidth) * (getComputedStyle(e).outlineStyle !== 'none'))
    assert.ok(width >= 2, 'the focus is not visible')
    return
  }
  throw new Error(`the keyboard does not reach ${target}`)
}

async function quarantine(page, connection) {
  await ask('import', {connection})
  await openLive(page, at(connection))
  await ask('spoil', {how: 'two tokens'})
  await page.getByRole('button', {name: 'Rotate now'}).click()
  await answer(page, 'quarantined', 'alert')
  await until(page, 'quarantined', () => status(page, 'quarantined'))
}

step('try again, after wrong app credentials', async () => {
  const page = await pat.tab()
  await openLive(page, at('demo/acme'))
  const before = await generationOf(page)
  await ask('spoil', {how: 'wrong secret'})
  await page.getByRole('button', {name: 'Rotate now'}).click()
  await answer(page, 'app credentials', 'alert')
  await until(page, 'misconfigured', () => status(page, 'misconfigured'))
  await openLive(page, world.publicURL)
  await card(page, 'demo/acme').getByRole('button', {name: 'Try again now'}).click()
  await answer(page, `demo/acme rotated: generation 1.${before + 1}`)
  await until(page, 'it needs nobody', async () => await card(page, 'demo/acme').count() === 0)
  await page.close()
})

step('release, with the right refresh token only', async () => {
  const page = await pat.tab()
  await quarantine(page, 'demo/release')
  await openLive(page, world.publicURL)
  await card(page, 'demo/release').getByRole('link', {name: 'Decide'}).click()
  await page.waitForURL('**/connections/demo/release#quarantine')
  await page.getByText('live', {exact: true}).waitFor()
  await page.evaluate(() => { window.stayed = true })
  await inspect(page, 'console-quarantined')
  await page.getByLabel('Correct refresh token').fill('not-a-token-of-this-response')
  await page.getByRole('button', {name: 'Release'}).click()
  await page.locator('#result').getByRole('alert').waitFor()
  await page.locator('#result [data-close]').click()
  assert.ok(await status(page, 'quarantined'))
  const {refresh} = await ask('refresh token')
  await page.getByLabel('Correct refresh token').fill(refresh)
  await page.getByRole('button', {name: 'Release'}).click()
  await answer(page, /demo.release (rotated|recovered): generation 1\./) // recovered, if the attempt has ended meanwhile
  await until(page, 'active', () => status(page, 'active'))
  await until(page, 'nothing to decide', async () => await page.getByRole('button', {name: 'Release'}).count() === 0)
  await page.close()
})

step('discard, after the name is typed', async () => {
  const page = await pat.tab()
  await quarantine(page, 'demo/discard')
  const name = page.getByLabel('Type demo/discard to discard the response')
  await name.fill('discard')
  await page.getByRole('button', {name: 'Discard'}).click()
  await answer(page, 'That is not demo/discard. Nothing was changed.', 'alert')
  await name.fill('demo/discard')
  await page.getByRole('button', {name: 'Discard'}).click()
  await answer(page, 'The quarantined response of demo/discard is discarded;')
  await until(page, 'nothing to decide', async () => await page.getByRole('button', {name: 'Discard'}).count() === 0)
  assert.ok(!await status(page, 'quarantined'))
  await page.close()
})

step('a consent link: create, copy, open, with the keyboard alone', async () => {
  const page = await pat.tab()
  await ask('invite', {connection: 'demo/pending', options: []})
  await openLive(page, world.publicURL)
  const create = card(page, 'demo/pending').getByRole('button', {name: 'Create a consent link'})
  await create.waitFor()
  await inspect(page, 'console-needs-a-person')
  await page.evaluate(() => document.activeElement.blur())
  await tabTo(page, create)
  await page.keyboard.press('Enter')
  const link = await shownLink(page)
  await inspect(page, 'console-link')
  await tabTo(page, page.locator('#result [data-copy]'))
  await page.keyboard.press('Enter')
  await page.locator('#result').getByText('Copied', {exact: true}).waitFor()
  assert.equal(await clipboard(page), link)
  await page.keyboard.press('Escape')
  await page.locator('#result').waitFor({state: 'hidden'})
  await until(page, 'the focus is back at the button', () => create.evaluate(e => e === document.activeElement))
  assert.ok(!(await page.content()).includes(link), 'the link is still in the page')
  await page.keyboard.press('Enter')
  const again = await shownLink(page)
  assert.notEqual(again, link)
  const [opened] = await Promise.all([pat.context.waitForEvent('page'), page.getByRole('link', {name: 'Open it in this browser'}).click()])
  await sees(opened, 'Connect your Procore account')
  assert.equal(opened.url(), again)
  await opened.close()
  await page.close()
})

step('what is copied is what is shown', async () => {
  const page = await pat.tab()
  await openLive(page, at('demo/acme'))
  const blocks = page.locator('section[aria-labelledby=read-title] .code')
  assert.ok(await blocks.count() >= 5, 'curl, bash, Go, Python, TypeScript')
  for (const block of await blocks.all()) {
    await block.getByRole('button', {name: 'Copy'}).click()
    await block.getByText('Copied', {exact: true}).waitFor()
    assert.equal(await clipboard(page), await block.locator('code').innerText())
  }
  await page.close()
})

step('every runbook that is linked exists', async () => {
  const page = await pat.tab()
  await pat.context.route('https://github.com/**', route => route.fulfill({contentType: 'text/html', body: '<h1>Runbook</h1>'}))
  await ask('import', {connection: 'demo/lapsed', how: 'then down'})
  await openLive(page, world.publicURL)
  await until(page, 'an expired token', async () => (await card(page, 'demo/lapsed').count()) > 0)
  const links = page.locator('#attention').getByRole('link', {name: 'Runbook'})
  assert.ok(await links.count() > 0)
  for (const link of await links.all()) {
    const [opened] = await Promise.all([pat.context.waitForEvent('page'), link.click()])
    await opened.waitForURL('https://github.com/**')
    const file = /\/blob\/main\/(infra\/runbooks\/[a-zA-Z-]+\.md)$/.exec(opened.url())?.[1]
    assert.ok(file && existsSync(new URL(`../../${file}`, import.meta.url)), opened.url())
    assert.equal(await opened.evaluate(() => document.referrer), '')
    await opened.close()
  }
  await page.close()
})

step('rotate now, after the access token has expired, and after a response was discarded', async () => {
  const page = await pat.tab()
  await openLive(page, world.publicURL)
  await ask('spoil', {how: 'up again'})
  await card(page, 'demo/lapsed').getByRole('button', {name: 'Rotate now'}).click()
  await answer(page, /demo.lapsed (rotated|recovered): generation 1\./)
  await until(page, 'it needs nobody', async () => await card(page, 'demo/lapsed').count() === 0)
  // The old refresh token of the discarded response is presented once its first answer can no longer arrive; this
  // server refuses it, as Procore most likely does.
  await openLive(page, at('demo/discard'))
  await until(page, 'a refusal', async () => {
    await page.getByRole('button', {name: 'Rotate now'}).click()
    const said = await page.locator('#result').getByRole('alert').innerText()
    await page.locator('#result [data-close]').click()
    return said.includes("needs a person's consent")
  })
  await until(page, 'needs consent', () => status(page, 'needs consent'))
  await page.goto(await linkFrom(page, page.locator('#need').getByRole('button', {name: 'Create a consent link'})))
  await sees(page, 'Reconnect your Procore account')
  await page.getByText('The service lost its access').waitFor()
  await reachesButton(page)
  await inspect(page, 'invite-after-a-loss')
  await page.close()
})

step('a store that cannot be read for a moment leaves the page as it is', async () => {
  const page = await pat.tab()
  await openLive(page, at('demo/acme'))
  const before = await generationOf(page)
  await page.route('**/connections/demo/acme', route => route.fulfill({status: 503, contentType: 'text/html', body: '<h1>Not now</h1>'}))
  await ask('rotate', {connection: 'demo/acme'})
  await page.getByText('not live', {exact: true}).waitFor()
  await page.unroute('**/connections/demo/acme')
  await until(page, 'the next generation', async () => await generationOf(page) > before)
  await page.getByText('live', {exact: true}).waitFor()
  await page.close()
})

step('nothing moves for those who asked for that', async () => {
  // moved changes a row, and says how many animations that starts.
  const moved = async reducedMotion => {
    const kim = await Person.arrive(browser, {reducedMotion})
    await openLive(kim.page, world.publicURL)
    const row = kim.page.locator('#rows tr[data-row="demo/acme"]')
    await row.evaluate(e => e.setAttribute('data-seen', ''))
    await kim.page.evaluate(() => {
      window.moved = 0
      for (const kind of ['animationstart', 'transitionrun']) document.addEventListener(kind, () => { window.moved++ })
    })
    await ask('rotate', {connection: 'demo/acme'})
    await until(kim.page, 'the row is another one', async () => await row.getAttribute('data-seen') === null)
    await kim.page.waitForTimeout(200)
    const n = await kim.page.evaluate(() => window.moved)
    await kim.leave()
    return n
  }
  assert.ok(await moved('no-preference') > 0, 'nothing moves at all')
  assert.equal(await moved('reduce'), 0)
})

step('other names and other sites', async () => {
  const page = await pat.tab()
  await openLive(page, at('demo/acme'))
  const before = await generationOf(page)
  const stranger = await pat.tab()
  await stranger.goto(`${evil}/`) // a name of another site that leads to this machine
  await sees(stranger, 'Misdirected Request')
  await inspect(stranger, 'console-refused')
  await stranger.route(`${evil}/prize`, route => route.fulfill({contentType: 'text/html',
    body: `<form method="post" action="${at('demo/acme')}/rotate"><button>Win a prize</button></form>`}))
  await stranger.goto(`${evil}/prize`)
  await stranger.getByRole('button').click()
  await sees(stranger, 'Forbidden')
  await stranger.close()
  await page.reload()
  assert.equal(await generationOf(page), before)
  await page.close()
})

step('without script: the answers are pages, and loading again shows what is new', async () => {
  const kim = await Person.arrive(browser, {javaScriptEnabled: false})
  await kim.page.goto(at('demo/acme'))
  const before = await generationOf(kim.page)
  await kim.page.getByRole('button', {name: 'Rotate now'}).click()
  await kim.page.getByText(`demo/acme rotated: generation 1.${before + 1}`).waitFor()
  await kim.page.getByRole('link', {name: 'Back'}).click()
  await sees(kim.page, 'demo/acme')
  assert.equal(await generationOf(kim.page), before + 1)
  await ask('rotate', {connection: 'demo/acme'})
  await kim.page.reload()
  assert.equal(await generationOf(kim.page), before + 2)
  assert.match(await kim.page.locator('noscript').textContent(), /reload this page/)
  await kim.leave()
  // The same pages for axe, which is a script itself.
  const page = await pat.tab()
  await page.route('**/console.js', route => route.abort())
  await page.goto(at('demo/acme'))
  await page.getByRole('button', {name: 'Invite again'}).click()
  await page.locator('#answer code').waitFor()
  await inspect(page, 'console-answer')
  await page.close()
})

step('from elsewhere: log in, act, log out', async () => {
  const sam = await Person.arrive(browser)
  const {page} = sam
  await page.goto(world.consoleURL)
  await sees(page, 'Log in to the console')
  await inspect(page, 'console-login')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'password')
  await page.keyboard.type('guess')
  await page.keyboard.press('Enter')
  await page.getByRole('alert').getByText('That is not the password.').waitFor()
  await page.keyboard.type(world.consolePassword)
  await page.keyboard.press('Enter')
  await page.locator('#rows tr[data-row="demo/acme"]').waitFor()
  await openLive(page, `${world.consoleURL}/connections/demo/acme`)
  const before = await generationOf(page)
  await page.getByRole('button', {name: 'Rotate now'}).click()
  await answer(page, 'demo/acme rotated: generation 1.')
  await until(page, 'the next generation', async () => await generationOf(page) === before + 1)
  await linkFrom(page, page.getByRole('button', {name: 'Invite again'}))
  const other = await sam.tab()
  await openLive(other, world.consoleURL)
  await inspect(other, 'console-logged-in')
  await page.getByRole('button', {name: 'Log out'}).click()
  await sees(page, 'Log in to the console')
  await page.goBack()
  await sees(page, 'Log in to the console')
  await other.reload()
  await sees(other, 'Log in to the console')
  await sam.leave()
})

// Connects through the callback server's pages in a real browser: as people do, and as they should not.
import assert from 'node:assert/strict'
import {after, before, test} from 'node:test'
import {allowing, ask, button, denying, inspect, inspected, invite, openBrowser, Person, reachesButton, sees, signIn, start, world} from './harness.mjs'

if (world.program) world.providers.push(world.program)
let browser
before(async () => {
  browser = await openBrowser()
  if (world.kind === 'stand-in') await ask('face') // the others show the pages of an app without name and logo
})
after(() => browser.close())

// visit is a test with a fresh person, on a provider that has seen no consent yet.
function visit(name, steps, options) {
  test(name, async () => {
    await ask('reset')
    const pat = await Person.arrive(browser, options)
    await steps(pat.page, pat)
    await pat.leave()
  })
}

const exchanges = async () => (await ask('exchanges')).count

const referenceOf = async page => (await page.locator('.reference strong').innerText()).trim()

visit('connect, allow, reload, back', async page => {
  const link = await invite('demo/connect', '--login', world.login)
  await page.goto(link)
  await sees(page, 'Connect your Procore account')
  for (const text of [world.login, 'demo/connect', new URL(world.publicURL).host]) assert.ok((await page.locator('main').innerText()).includes(text), text)
  await inspect(page, 'invite')
  await start(page, link)
  await allowing(page).click()
  await sees(page, 'Procore is connected')
  await inspect(page, 'connected')
  await page.reload()
  await sees(page, 'Procore is connected')
  await page.goBack() // the provider's page
  await allowing(page).click()
  await sees(page, 'Procore is connected')
  assert.equal(await exchanges(), 1, 'exchanges')
  assert.ok((await page.locator('main').innerText()).includes(world.login), 'the account is not named')
  await page.goto(link)
  await sees(page, 'This link has been used')
  await inspect(page, 'link-used')
})

visit('nothing was connected in this browser', async page => {
  await page.goto(`${world.publicURL}/connected`)
  await sees(page, 'Nothing was connected here')
  await inspect(page, 'nothing-connected')
  const link = await invite('demo/unfinished')
  await start(page, link)
  await page.goto(`${world.publicURL}/connected?result=verifying&reference=ABCD-2345`)
  await sees(page, 'Nothing was connected here')
})

visit('deny, then allow with the same link', async page => {
  const link = await invite('demo/deny')
  await start(page, link)
  await denying(page).click()
  await sees(page, 'You did not allow access')
  await inspect(page, 'denied')
  await page.reload()
  await sees(page, 'You did not allow access')
  await start(page, link)
  await allowing(page).click()
  await sees(page, 'Procore is connected')
  assert.equal(await exchanges(), 1, 'exchanges')
})

visit('with the keyboard alone', async page => {
  const link = await invite('demo/keyboard')
  await page.goto(link)
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Continue to Procore')
  await page.keyboard.press('Enter')
  await signIn(page)
  await allowing(page).click()
  await sees(page, 'Procore is connected')
})

visit('without scripts', async page => {
  await start(page, await invite('demo/no-script'))
  await allowing(page).click()
  await sees(page, 'Procore is connected')
}, {javaScriptEnabled: false})

visit('double clicks', async page => {
  await page.goto(await invite('demo/double'))
  await button(page).dblclick()
  await signIn(page)
  await allowing(page).dblclick({noWaitAfter: true})
  await sees(page, 'Procore is connected')
  assert.equal(await exchanges(), 1, 'exchanges')
})

visit('a second tab', async (first, pat) => {
  const link = await invite('demo/tabs')
  const second = await pat.tab()
  await start(first, link)
  await start(second, link)
  await allowing(first).click()
  await sees(first, 'Procore is connected')
  await allowing(second).click()
  await sees(second, 'Procore is already connected')
  await inspect(second, 'already-connected')
  await second.reload()
  await sees(second, 'Procore is already connected')
  assert.equal(await exchanges(), 1, 'exchanges')
})

visit("another browser's answer", async (page, pat) => {
  const link = await invite('demo/other')
  await page.goto(link)
  await button(page).click()
  await page.waitForURL(/authorize|login/)
  const state = pat.requests.map(r => r.url()).find(u => u.includes('state='))
  const {url: callback} = await ask('consent', {url: state})
  const sam = await Person.arrive(browser)
  await sam.page.goto(callback)
  await sees(sam.page, 'We could not verify this sign-in')
  await inspect(sam.page, 'refused')
  await start(sam.page, link) // cookies of a start of their own do not help
  await sam.page.goto(callback)
  await sees(sam.page, 'We could not verify this sign-in')
  await sam.leave()
  assert.equal(await exchanges(), 0, 'exchanges')
  await page.goto(callback)
  await sees(page, 'Procore is connected')
  assert.equal(await exchanges(), 1, 'exchanges')
})

visit('links that are no good', async page => {
  const expired = await invite('demo/expired', '--expires', '1s')
  await page.waitForTimeout(1100) // real time: the server has no other
  await page.goto(expired)
  await sees(page, 'This link has expired')
  await inspect(page, 'link-expired')

  const worn = await invite('demo/worn')
  for (let n = 0; n < 5; n++) await start(page, worn)
  await page.goto(worn)
  await sees(page, 'This link does not work')
  await inspect(page, 'link-unusable')

  await page.goto(`${world.publicURL}/connect/${'A'.repeat(52)}`)
  await sees(page, 'This link does not work')
  await page.goto(`${world.publicURL}/somewhere`)
  await sees(page, 'There is nothing here')
  await inspect(page, 'not-found')
  assert.equal(await exchanges(), 0, 'exchanges')
})

visit('a link that is revoked while the person decides', async page => {
  const link = await invite('demo/revoked')
  await start(page, link)
  await ask('revoke', {connection: 'demo/revoked'})
  await allowing(page).click()
  await sees(page, 'This link does not work')
  await page.goto(link)
  await sees(page, 'This link does not work')
  assert.equal(await exchanges(), 0, 'exchanges')
})

visit('a connection that is disconnected while the person decides', async page => {
  const link = await invite('demo/gone')
  await start(page, link)
  await ask('disconnect', {connection: 'demo/gone'})
  await allowing(page).click()
  await sees(page, 'This connection was changed meanwhile')
  await inspect(page, 'superseded')
  assert.equal(await exchanges(), 0, 'exchanges')
  await page.goto(link)
  await sees(page, 'This link does not work')
  await start(page, await invite('demo/gone'))
  await allowing(page).click()
  await sees(page, 'Procore is connected')
})

visit('another account than the invited one', async page => {
  await start(page, await invite('demo/wrong', '--login', 'sam@example.com'))
  await allowing(page).click()
  await sees(page, 'That was another account')
  await inspect(page, 'wrong-account')
})

visit('a form on another site, and a frame', async (page, pat) => {
  const link = await invite('demo/foreign')
  await page.setContent(`<form method="post" action="${link}"><button>Win a prize</button></form>`)
  await page.getByRole('button').click()
  await sees(page, 'We could not verify this sign-in')
  await page.goto('about:blank')
  await page.setContent(`<iframe src="${link}"></iframe>`)
  await page.frames()[1].waitForLoadState().catch(() => {})
  assert.equal(await page.frameLocator('iframe').getByRole('button').count(), 0, 'the page shows in a frame')
  pat.complaints.length = 0 // the browser says why the frame is empty
  const kept = await pat.context.cookies(world.publicURL)
  assert.deepEqual(kept, [], 'cookies')
})

// What depends on the browser's own headers: Sec-Fetch-Site is removed before the server sees it, as if the browser were old.
if (world.kind === 'https') visit('single sign-on at another host, in a browser of 2022', async (page, pat) => {
  await start(page, await invite('demo/sso'))
  const sent = async part => {
    const request = pat.requests.find(r => part(new URL(r.url()), r))
    assert.ok(request, `no such request among ${pat.requests.map(r => r.url().replace(/\?.*/, ''))}`)
    return request.allHeaders()
  }
  const form = await sent((u, r) => r.method() === 'POST' && u.origin === world.publicURL)
  assert.equal(form.origin, world.publicURL, 'Origin of the form')
  for (const host of ['login.test', 'sso.test']) {
    assert.equal((await sent(u => u.hostname === host)).referer, undefined, `what ${host} learns of where the person comes from`)
  }
  const [cookie] = await pat.context.cookies(world.publicURL)
  assert.deepEqual([cookie.name.startsWith('__Host-tokenturn-'), cookie.secure, cookie.httpOnly, cookie.sameSite, cookie.path], [true, true, true, 'Lax', '/'])
  assert.ok(Math.abs(cookie.expires - Date.now() / 1000 - 600) < 60, `the cookie lives ${cookie.expires - Date.now() / 1000} s`)
  await allowing(page).click()
  await sees(page, 'Procore is connected')
})

// What only a provider that misbehaves on command can show.
if (world.kind === 'stand-in') {
  visit('an answer that is lost', async page => {
    await start(page, await invite('demo/lost'))
    await ask('spoil', {how: 'lost'})
    await allowing(page).click()
    await sees(page, 'We could not finish')
    await inspect(page, 'failed')
    const mark = await referenceOf(page)
    await page.reload()
    assert.equal(await referenceOf(page), mark)
    assert.ok((await ask('log')).text.includes(`reference=${mark}`), 'the reference number finds no line in the log')
  })

  visit('a provider that asks to wait', async page => {
    const link = await invite('demo/wait')
    await start(page, link)
    await ask('spoil', {how: 'busy'})
    await allowing(page).click()
    await sees(page, 'Please try again in a few minutes')
    await inspect(page, 'unavailable')
    await start(page, link)
    await allowing(page).click()
    await sees(page, 'Procore is connected')
  })

  visit('a provider that does not identify the account', async page => {
    const link = await invite('demo/verify')
    await start(page, link)
    await ask('spoil', {how: 'silent'})
    await allowing(page).click()
    await sees(page, 'Saved, and still being checked')
    await inspect(page, 'verifying')
    await ask('spoil', {how: 'not at all'})
    await page.goto(link)
    await sees(page, 'Connect your Procore account')
  })

  visit('a company without the app', async page => {
    await ask('spoil', {how: 'uninstalled'})
    await start(page, await invite('demo/uninstalled', '--company', '4264807'))
    await allowing(page).click()
    await sees(page, 'Saved: the app still has to be installed')
    await inspect(page, 'not-installed')
    await ask('spoil', {how: 'not at all'})
  })

  visit('long names, a logo, and a renewal, on a small phone', async page => {
    const connection = 'demo/hawthorne-general-contractors-northwest'
    const company = ['--company', '4264807', '--company-name', 'Hawthorne General Contractors & Sons Incorporated']
    await page.goto(await invite(connection, ...company, '--login', 'bartholomew.featherstonehaugh@hawthorne-general.example.com'))
    await sees(page, 'Connect your Procore account')
    assert.ok(await page.locator('.party img').evaluate(logo => logo.complete && logo.naturalWidth > 0), 'the logo is not shown')
    await reachesButton(page)
    await inspect(page, 'invite-long')
    await start(page, await invite(connection, ...company))
    await allowing(page).click()
    await sees(page, 'Procore is connected')
    await inspect(page, 'connected-long')
    await page.goto(await invite(connection))
    await sees(page, 'Reconnect your Procore account')
    for (const text of ['This is a renewal', 'Hawthorne General Contractors & Sons', world.login]) assert.ok((await page.locator('main').innerText()).includes(text), text)
    await reachesButton(page)
    await inspect(page, 'invite-again')
  })

  // What the program at the end of the way was told; the result page has a button that leads there.
  const leadsBack = async (page, connection, result) => {
    const mark = await page.locator('.reference strong').count() ? await referenceOf(page) : undefined
    await page.getByRole('link', {name: `Continue to ${new URL(world.program).host}`}).click()
    await sees(page, 'Back in the program')
    await cameBack(connection, result, mark)
  }
  const cameBack = async (connection, result, mark) => {
    const all = await ask('came back')
    assert.equal(all?.length, 1, 'visits of the program')
    const [reference] = all[0].reference
    assert.deepEqual(all[0], {customer: ['42'], connection: [connection], result: [result], reference: [mark ?? reference]})
    assert.match(reference, /^[A-Z2-7]{4}-[A-Z2-7]{4}$/)
  }
  const inviteBack = connection => invite(connection, '--return-url', `${world.program}/done?customer=42`)

  visit('a success leads back to the program, by its button and by itself', async page => {
    await start(page, await inviteBack('demo/back'))
    await allowing(page).click()
    await sees(page, 'Procore is connected')
    assert.equal(await page.getByText('You are taken there automatically').count(), 1)
    await leadsBack(page, 'demo/back', 'connected')
    await page.route('**/connected', async route => { // a look takes longer than the page stays
      const response = await route.fetch()
      const {refresh, ...headers} = response.headers()
      await route.fulfill({response, headers})
    })
    await page.goto(`${world.publicURL}/connected`)
    await inspect(page, 'connected-back')
    await page.unroute('**/connected')
    const seen = Date.now()
    await page.goto(`${world.publicURL}/connected`)
    await sees(page, 'Back in the program')
    assert.ok(Date.now() - seen > 7000, `after ${Date.now() - seen} ms`)
    await cameBack('demo/back', 'connected')
  })

  visit('every other result leads back by its button alone', async page => {
    const link = await inviteBack('demo/back-denied')
    await start(page, link)
    await denying(page).click()
    await sees(page, 'You did not allow access')
    assert.equal(await page.getByText('automatically').count(), 0)
    await inspect(page, 'denied-back')
    await leadsBack(page, 'demo/back-denied', 'denied')
    await start(page, link)
    await ask('spoil', {how: 'lost'})
    await allowing(page).click()
    await sees(page, 'We could not finish')
    await leadsBack(page, 'demo/back-denied', 'failed')
    await start(page, await inviteBack('demo/back-pending'))
    await ask('spoil', {how: 'silent'})
    await allowing(page).click()
    await sees(page, 'Saved, and still being checked')
    await leadsBack(page, 'demo/back-pending', 'pending')
    await ask('spoil', {how: 'not at all'})
  })

  visit('a slow answer, looked at again meanwhile', async (page, pat) => {
    const link = await invite('demo/slow')
    await page.goto(link)
    await button(page).click()
    await page.waitForURL(/authorize/)
    const {url: callback} = await ask('consent', {url: pat.requests.map(r => r.url()).find(u => u.includes('state='))})
    await ask('spoil', {how: 'held'})
    const first = page.goto(callback)
    await ask('held')
    const second = await pat.tab()
    await second.goto(`${callback}&again=1`) // Chromium itself lets a second request for the very same address wait for the first
    await sees(second, 'Still working on it')
    await ask('release')
    await inspect(second, 'still-working')
    await first
    await sees(page, 'Procore is connected')
    await second.getByRole('link', {name: 'see the result'}).click()
    await sees(second, 'Procore is connected')
    assert.equal(await exchanges(), 1, 'exchanges')
  })

  test('every page was looked at', () => {
    assert.deepEqual(world.pages.filter(name => !inspected.has(name)), [])
  })
}

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The files of the page: in the bundle part of it, in a checkout read from the folder beside this file. */

/** Put in place by packaging/bundle.ts. */
declare const WEIR_PAGE: Readonly<Record<string, string>> | undefined

export interface Asset {
  readonly type: string
  readonly text: string
}

const TYPES: Readonly<Record<string, string>> = {
  'index.html': 'text/html; charset=utf-8',
  'page.css': 'text/css; charset=utf-8',
  'page.js': 'text/javascript; charset=utf-8',
}

/** By path. */
export function readAssets(): ReadonlyMap<string, Asset> {
  const files = typeof WEIR_PAGE === 'undefined' ? undefined : WEIR_PAGE
  const folder = join(import.meta.dirname, 'page')
  const assets = Object.entries(TYPES).map(([name, type]): [string, Asset] => [
    `/${name}`,
    { type, text: files?.[name] ?? readFileSync(join(folder, name), 'utf8') },
  ])
  const index = assets.find(([path]) => path === '/index.html')!
  return new Map([...assets, ['/', index[1]]])
}

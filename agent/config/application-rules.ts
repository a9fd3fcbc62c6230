/** Which sampling rate and polling interval hold for an application that tells of itself. */

import type { PollingConfig, SamplingConfig } from './config.ts'

/** 1 in N operations: `sampling.app.NAME` with the longest NAME that the application's begins with, else `sampling`. */
export function applicationRate(
  sampling: Pick<SamplingConfig, 'rate' | 'byApplication'>,
  application: string,
): number {
  return longest(sampling.byApplication, application) ?? sampling.rate
}

/** Seconds: `polling.app.NAME` likewise, else `polling`. */
export function applicationPolling(
  polling: Pick<PollingConfig, 'seconds' | 'byApplication'>,
  application: string,
): number {
  return longest(polling.byApplication, application) ?? polling.seconds
}

/** Names are parted by dots: `web` holds for `web.checkout`, and not for `webmail`. */
function longest(rules: ReadonlyMap<string, number>, application: string): number | undefined {
  for (let name = application; name !== ''; ) {
    const value = rules.get(name)
    if (value !== undefined) return value
    const dot = name.lastIndexOf('.')
    name = dot < 0 ? '' : name.slice(0, dot)
  }
  return undefined
}

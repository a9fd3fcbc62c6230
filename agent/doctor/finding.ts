/** What the doctor says of one thing. */
export interface Finding {
  /** The thing: `kernel`, `psample`, `collector main`, … */
  readonly name: string
  /**
   * `ok`; `missing` when something that the configuration asks for cannot be done; `weak` when it can, but not as well
   * as it could be; `unused` when something is not there that this configuration does not need.
   */
  readonly state: 'ok' | 'missing' | 'weak' | 'unused'
  /** What was found, and what it means when it is not well. */
  readonly what: string
  /** The command that mends it, or what to do where there is none. */
  readonly mend?: string
}

export function ok(name: string, what: string): Finding {
  return { name, state: 'ok', what }
}

/** Of no weight unless the configuration needs it. */
export function lacking(name: string, isNeeded: boolean, what: string, mend: string): Finding {
  return { name, state: isNeeded ? 'missing' : 'unused', what, mend }
}

export function weak(name: string, what: string, mend: string): Finding {
  return { name, state: 'weak', what, mend }
}

export function missing(name: string, what: string, mend: string): Finding {
  return { name, state: 'missing', what, mend }
}

import { testsOn } from './debian.ts'

testsOn('trixie')

import { testsOn } from './debian.ts'

testsOn('bookworm')

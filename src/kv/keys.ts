// Interface agreed; implementation follows.
export {}

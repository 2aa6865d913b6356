/** What panes, lists and forms are made of: values that tell who has read them, and lists whose elements stay. */

/** @type {Effect | null} */
let running = null;

class Effect {
  /** @param {() => void} body */
  constructor(body) {
    this.body = body;
    /** @type {Set<Set<Effect>>} */
    this.sources = new Set();
  }

  run() {
    this.stop();
    const before = running;
    running = this;
    try {
      this.body();
    } finally {
      running = before;
    }
  }

  stop() {
    for (const readers of this.sources) readers.delete(this);
    this.sources.clear();
  }
}

/**
 * A value: effects that have read it run again when it changes.
 * @template T
 * @param {T} initial
 */
export function signal(initial) {
  let current = initial;
  /** @type {Set<Effect>} */
  const readers = new Set();
  return {
    get value() {
      if (running) {
        readers.add(running);
        running.sources.add(readers);
      }
      return current;
    },
    set value(next) {
      if (Object.is(next, current)) return;
      current = next;
      for (const reader of [...readers]) reader.run();
    },
  };
}

/**
 * Runs now, and whenever a signal that it has read changes. Returns what ends that.
 * @param {() => void} body
 */
export function effect(body) {
  const made = new Effect(body);
  made.run();
  return () => made.stop();
}

/**
 * Fills an element with one child for each item. A child stays as long as its key is there, with its focus and whatever
 * is unfolded in it, and is moved only if the order has changed.
 * @template T
 * @param {Element} container
 * @param {(item: T) => string} keyOf
 * @param {(item: T) => { element: HTMLElement, update: (item: T) => void }} make
 * @returns {(items: T[]) => void}
 */
export function keyedList(container, keyOf, make) {
  /** @type {Map<string, ReturnType<typeof make>>} */
  let known = new Map();
  return (items) => {
    /** @type {typeof known} */
    const next = new Map();
    for (const item of items) {
      const key = keyOf(item);
      const child = known.get(key) ?? make(item);
      child.update(item);
      next.set(key, child);
    }
    for (const [key, { element }] of known) if (!next.has(key)) element.remove();
    known = next;
    let place = container.firstElementChild;
    for (const { element } of next.values()) {
      if (element === place) place = place.nextElementSibling;
      else container.insertBefore(element, place);
    }
  };
}

/**
 * Returns what reads, one reading at a time: who asks meanwhile has it read once more, for the first may have missed why.
 * @param {() => Promise<void>} read
 * @param {() => boolean} isOver whether nobody wants to know any more
 */
export function oneAtATime(read, isOver) {
  let reading = false;
  let again = false;
  return async function ask() {
    if (reading) {
      again = true;
      return;
    }
    reading = true;
    try {
      await read();
    } finally {
      reading = false;
      if (again && !isOver()) {
        again = false;
        ask();
      }
    }
  };
}

"""What the words of the page mean, for its glossary and for the heads of its tables."""

WORDS = {
    "level": "A value u of the training loss. The level set is where the loss is at most u; by default u is a margin "
    "above the larger loss of the two ends.",
    "height": "The largest loss on a path. It is an upper bound: a better path may be lower.",
    "barrier": "How far the loss on a path rises above the straight interpolation between the losses of its two ends.",
    "straight line": "The direct way from A to B. Where its barrier is near 0, the two may be averaged.",
    "connected": "A path was found on which the loss stays at most at the level.",
    "undecided": "This search found no path below the level. It never proves that there is none; the reason says what "
    "ended the search.",
    "separated": "Proved: every path between the two rises above the level.",
    "proved bound": "What the loss is proved not to exceed between the samples, where a certificate was asked for.",
    "distance": "The Euclidean distance between the two ends, in the space of all parameters.",
    "length": "The length of the found path; divided by the distance it is the normalised length, at least 1.",
    "beads": "Points between the ends at which the found path bends; 0 is the straight line.",
    "work": "What the search cost, in training steps; a forward pass counts as a third.",
    "N_u": "Components of the level set at u that the given points lie in, as far as paths were found: an upper bound "
    "among these points.",
    "merge": "The level at which two groups of points become one component.",
    "fork": "From one moment of the run, two children train on in two orders of the data; the barrier between them "
    "says whether the run was stable by then.",
    "error barrier": "How far the error on the line between two children rises, in percentage points.",
    "E": "The mean training loss on the batches that define the loss surface.",
}

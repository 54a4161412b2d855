"""The explorer: a filesystem as a map that one can walk, in a browser.

From the bottom up:

    model/       what is known of a filesystem: its address lines, a snapshot of devices, chunks and
                 block groups, extents in memory, the worker that reads them
    render/      what lies on a tile and what it looks like: pure functions of extents and squares
    tile_source  what tiles are drawn from: the cache, the worker and the pure functions together
    legends      what the colours mean, and how many bytes have which one
    atlas        all of that for one filesystem
    search/      queries and their results, details of a pixel
    web/         the same over HTTP: server, guard, pools of threads, live events, the page; and
                 as a file: export
    static/      the page: JavaScript modules and style sheets

What the colours are is declared in :mod:`heatmap.colourings`.
"""

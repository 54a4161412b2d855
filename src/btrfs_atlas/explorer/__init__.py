"""The explorer: a filesystem as a map that one can walk, in a browser.

From the bottom up:

    lines       the address lines that can be shown, and what of the filesystem lies where on them
    world       what is known without reading extents, and what changes from commit to commit
    store       extents in memory, loaded block group by block group
    levels      the same with less detail, for the lower zooms
    colourings  what the colours mean
    ground      what of the extents lies on a tile, in as much detail as its pixels can show
    tiles       squares of the map, drawn by the engine of the heatmap package
    atlas       all of that for one filesystem
    reading     reading for one question, a step at a time
    questions   what somebody looks for, and what it leads to; file_extents sums up what files use
    find        from a question to places on the map
    details     from a place on the map to what there is to know about it
    overview    what a page has to know first: the filesystem as a whole, and the legends
    page        the page in one piece, made of what is in static/
    server      the page and its data over HTTP, with lanes (threads) and live (events); guard
                keeps everybody else out, listening and running are the socket and uvicorn
    export      the overview as a single file
"""

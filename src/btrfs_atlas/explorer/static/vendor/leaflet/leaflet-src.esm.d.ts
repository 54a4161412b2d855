// The types of this version of Leaflet are those of the package @types/leaflet.

export * from "leaflet";

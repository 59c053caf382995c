// Material of the head: colours, clay, normals, wireframe or texture coordinates, all in one shader program.

import { MOUTH_LIGHT } from "./occlusion.js";
import { wrinkleWeights } from "./wrinkles.js";

export const MODES = ["colour", "clay", "normals", "wire", "uv"];
const NO_EDGE = new Float32Array(33);
const TILES = 7; // of expressions in the wrinkle atlas, after the tile of the head's own expression

const PARAMETERS = `#include <uv_pars_fragment>
uniform int viewMode;
uniform float detailStrength;
uniform sampler2D smoothMap;
uniform sampler2D wrinkleMap;
uniform float wrinkleScale;
uniform float wrinkleOwn;
uniform float leftSide;
uniform float wrinkleLeft[${TILES}];
uniform float wrinkleRight[${TILES}];
varying float vRoughness;
varying float vLight;
vec2 wrinkleTile(float number) {
  vec2 texel = clamp(vUv * 256.0, 0.5, 255.5) / 256.0;
  vec2 atlasUv = (vec2(mod(number, 4.0), floor(number / 4.0)) + texel) / vec2(4.0, 2.0);
  return (texture2D(wrinkleMap, atlasUv).xy * 255.0 - 128.0) / 127.0 * wrinkleScale;
}`;

// The colour follows the strength of the detail as in a download: geometric interpolation from the texture without detail
// to the one with detail, and extrapolation beyond it.
const COLOURS = `#include <map_fragment>
vec3 smoothTexel = sRGBToLinear(texture2D(smoothMap, vUv)).rgb;
vec3 pigment = clamp((texelColor.rgb + 0.001) / (smoothTexel + 0.001), 0.1, 10.0);
diffuseColor.rgb *= pow(pigment, vec3(detailStrength - 1.0));`;

const CLAY_COLOUR = "if (viewMode != 0) diffuseColor.rgb = vec3(0.56, 0.52, 0.48);";
export const CLAY = `#include <color_fragment>\n${CLAY_COLOUR}`;

const MODE_COLOURS = `#include <color_fragment>
if (viewMode == 4) {
  vec2 square = floor(vUv * 32.0);
  float odd = mod(square.x + square.y, 2.0);
  vec3 hue = mix(vec3(vUv.x, vUv.y, 1.0 - 0.5 * (vUv.x + vUv.y)), vec3(1.0), 0.25);
  diffuseColor.rgb = mix(0.25, 1.0, odd) * hue;
} else ${CLAY_COLOUR}`;

const ROUGHNESS = "float roughnessFactor = viewMode == 0 ? vRoughness : 0.7;";

const DISPLACEMENT = `
vec3 mapN = texture2D(normalMap, vUv).xyz * 255.0 - vec3(128.0, 128.0, 127.5);
vec2 slope = mapN.xy / max(mapN.z, 12.0);
if (wrinkleOwn != 0.0) slope += wrinkleOwn * wrinkleTile(0.0);
float leftness = smoothstep(-0.03, 0.03, (vUv.x - 0.5) * leftSide);
for (int k = 0; k < ${TILES}; k++) {
  float weight = mix(wrinkleRight[k], wrinkleLeft[k], leftness);
  if (weight > 0.0) slope += weight * wrinkleTile(float(k) + 1.0);
}
normal = normalize(vTBN * vec3(slope * detailStrength, 1.0));`;

// Subsurface scattering, approximated by wrap lighting: red light travels farthest, so the terminator is soft and reddish.
const LAMBERT = "reflectedLight.directDiffuse += ( 1.0 - clearcoatDHR ) * irradiance";
const SOFT_LAMBERT = `vec3 wrap = viewMode == 0 ? vec3(0.16, 0.06, 0.04) : vec3(0.0);
vec3 entered = saturate((dot(geometry.normal, directLight.direction) + wrap) / (1.0 + wrap)) * directLight.color * PI;
reflectedLight.directDiffuse += ( 1.0 - clearcoatDHR ) * entered`;

// Soft shoulder for highlights instead of clipping.
export const SHOULDER = `if (viewMode == 0) {
  vec3 excess = max(gl_FragColor.rgb - 0.6, 0.0) / 0.4;
  gl_FragColor.rgb = min(gl_FragColor.rgb, 0.6) + 0.4 * excess / (1.0 + excess);
}
#include <tonemapping_fragment>`;

function uniformTexture(red, green, blue) {
  const texture = new THREE.DataTexture(new Uint8Array([red, green, blue, 255]), 1, 1, THREE.RGBAFormat);
  texture.needsUpdate = true;
  return texture;
}

export class HeadMaterial {
  constructor(model) {
    this.model = model;
    this.white = uniformTexture(255, 255, 255);
    this.flatNormal = uniformTexture(128, 128, 255);
    this.noSlope = uniformTexture(128, 128, 128);
    this.uniforms = {
      viewMode: { value: 0 },
      detailStrength: { value: 1 },
      smoothMap: { value: this.white },
      wrinkleMap: { value: this.noSlope },
      wrinkleScale: { value: model.wrinkleScale },
      leftSide: { value: model.leftSide },
      hasMouth: { value: false },
      upperEdge: { value: NO_EDGE },
      lowerEdge: { value: NO_EDGE },
      wrinkleOwn: { value: 0 },
      wrinkleLeft: { value: new Array(TILES).fill(0) },
      wrinkleRight: { value: new Array(TILES).fill(0) },
    };
    this.material = new THREE.MeshStandardMaterial({
      metalness: 0, vertexTangents: true, vertexColors: true, map: this.white, normalMap: this.flatNormal,
      polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1,
    });
    this.material.onBeforeCompile = (shader) => this.patchShader(shader);
    this.wire = new THREE.MeshBasicMaterial({ color: 0x1d2a3a, wireframe: true, transparent: true, opacity: 0.55 });
  }

  patchShader(shader) {
    Object.assign(shader.uniforms, this.uniforms);
    shader.vertexShader = shader.vertexShader
      .replace("#include <common>", `#include <common>
        attribute float vertexRoughness;
        attribute float inMouth;
        uniform bool hasMouth;
        varying float vRoughness;
        varying float vLight;
        ${MOUTH_LIGHT}`)
      .replace("#include <begin_vertex>", `#include <begin_vertex>
        vRoughness = vertexRoughness;
        vLight = hasMouth && inMouth > 0.0 ? openingLight(position) : 1.0;`);
    const lights = THREE.ShaderChunk.lights_physical_pars_fragment.replace(LAMBERT, SOFT_LAMBERT);
    shader.fragmentShader = shader.fragmentShader
      .replace("#include <uv_pars_fragment>", PARAMETERS)
      .replace("#include <map_fragment>", COLOURS)
      .replace("#include <color_fragment>", MODE_COLOURS)
      .replace("#include <roughnessmap_fragment>", ROUGHNESS)
      .replace("#include <normal_fragment_maps>", DISPLACEMENT)
      .replace("#include <lights_physical_pars_fragment>", lights)
      .replace("#include <tonemapping_fragment>", `gl_FragColor.rgb *= vLight;\n${SHOULDER}`)
      .replace("#include <dithering_fragment>",
        "#include <dithering_fragment>\nif (viewMode == 2) gl_FragColor = vec4(0.5 * normal + 0.5, 1.0);");
  }

  // `smooth` is the texture without detail, `wrinkles` the wrinkle atlas; a missing texture gets a neutral one.
  setTextures({ texture, normal, smooth, wrinkles }) {
    this.material.map = texture ?? this.white;
    this.material.normalMap = normal ?? this.flatNormal;
    this.uniforms.smoothMap.value = smooth ?? this.material.map;
    this.uniforms.wrinkleMap.value = wrinkles ?? this.noSlope;
    this.hasWrinkles = Boolean(wrinkles);
  }

  // The opening that lights the inside of the mouth, see `Edges`; null where the colours of the skin contain its shade.
  setMouth(opening) {
    this.uniforms.hasMouth.value = Boolean(opening);
    this.uniforms.upperEdge.value = opening?.upper ?? NO_EDGE;
    this.uniforms.lowerEdge.value = opening?.lower ?? NO_EDGE;
  }

  setMode(mode) {
    this.uniforms.viewMode.value = MODES.indexOf(mode);
  }

  setStrength(strength) {
    this.uniforms.detailStrength.value = strength;
  }

  // See `wrinkleWeights`.
  setExpression(expression, fitted) {
    const { own, left, right } = wrinkleWeights(expression, fitted, this.model);
    const { wrinkleOwn, wrinkleLeft, wrinkleRight } = this.uniforms;
    wrinkleOwn.value = this.hasWrinkles ? own : 0;
    this.model.wrinkles.forEach((_, k) => {
      wrinkleLeft.value[k] = this.hasWrinkles ? left[k] : 0;
      wrinkleRight.value[k] = this.hasWrinkles ? right[k] : 0;
    });
  }
}

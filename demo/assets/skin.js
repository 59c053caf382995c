// Material of the head: skin, clay, normals, wireframe or texture coordinates, all by one program.

export const MODES = ["colour", "clay", "normals", "wire", "uv"];
const TILES = 7; // of expressions in an atlas of wrinkles, beside that of the head's own

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
vec2 wrinkleTile(float number) {
  vec2 inside = clamp(vUv * 256.0, 0.5, 255.5) / 256.0;
  vec2 place = (vec2(mod(number, 4.0), floor(number / 4.0)) + inside) / vec2(4.0, 2.0);
  return (texture2D(wrinkleMap, place).xy * 255.0 - 128.0) / 127.0 * wrinkleScale;
}`;

// Colours follow the strength of the detail as they do in a download: geometrically from those without detail to those
// with all of it, and beyond.
const COLOURS = `#include <map_fragment>
vec3 smoothTexel = sRGBToLinear(texture2D(smoothMap, vUv)).rgb;
vec3 pigment = clamp((texelColor.rgb + 0.001) / (smoothTexel + 0.001), 0.1, 10.0);
diffuseColor.rgb *= pow(pigment, vec3(detailStrength - 1.0));`;

const PAINT = `#include <color_fragment>
if (viewMode == 4) {
  vec2 square = floor(vUv * 32.0);
  float odd = mod(square.x + square.y, 2.0);
  vec3 hue = mix(vec3(vUv.x, vUv.y, 1.0 - 0.5 * (vUv.x + vUv.y)), vec3(1.0), 0.25);
  diffuseColor.rgb = mix(0.25, 1.0, odd) * hue;
} else if (viewMode != 0) {
  diffuseColor.rgb = vec3(0.56, 0.52, 0.48);
}`;

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

// Light that enters skin leaves it nearby, red light farthest: shadows begin late and reddish.
const LAMBERT = "reflectedLight.directDiffuse += ( 1.0 - clearcoatDHR ) * irradiance";
const SOFT_LAMBERT = `vec3 reach = viewMode == 0 ? vec3(0.16, 0.06, 0.04) : vec3(0.0);
vec3 entered = saturate((dot(geometry.normal, directLight.direction) + reach) / (1.0 + reach)) * directLight.color * PI;
reflectedLight.directDiffuse += ( 1.0 - clearcoatDHR ) * entered`;

// Bright light ends softly instead of being cut off.
const SHOULDER = `if (viewMode == 0) {
  vec3 beyond = max(gl_FragColor.rgb - 0.6, 0.0) / 0.4;
  gl_FragColor.rgb = min(gl_FragColor.rgb, 0.6) + 0.4 * beyond / (1.0 + beyond);
}
#include <tonemapping_fragment>`;

function even(red, green, blue) {
  const texture = new THREE.DataTexture(new Uint8Array([red, green, blue, 255]), 1, 1, THREE.RGBAFormat);
  texture.needsUpdate = true;
  return texture;
}

export class Skin {
  constructor(model) {
    this.model = model;
    this.white = even(255, 255, 255);
    this.flat = even(128, 128, 255);
    this.level = even(128, 128, 128);
    this.uniforms = {
      viewMode: { value: 0 },
      detailStrength: { value: 1 },
      smoothMap: { value: this.white },
      wrinkleMap: { value: this.level },
      wrinkleScale: { value: model.wrinkleScale },
      leftSide: { value: model.leftSide },
      wrinkleOwn: { value: 0 },
      wrinkleLeft: { value: new Array(TILES).fill(0) },
      wrinkleRight: { value: new Array(TILES).fill(0) },
    };
    this.material = new THREE.MeshStandardMaterial({
      metalness: 0, vertexTangents: true, vertexColors: true, map: this.white, normalMap: this.flat,
      polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1,
    });
    this.material.onBeforeCompile = (shader) => this.write(shader);
    this.wire = new THREE.MeshBasicMaterial({ color: 0x1d2a3a, wireframe: true, transparent: true, opacity: 0.55 });
  }

  write(shader) {
    Object.assign(shader.uniforms, this.uniforms);
    shader.vertexShader = shader.vertexShader
      .replace("#include <common>", "#include <common>\nattribute float vertexRoughness;\nvarying float vRoughness;")
      .replace("#include <begin_vertex>", "#include <begin_vertex>\nvRoughness = vertexRoughness;");
    const lights = THREE.ShaderChunk.lights_physical_pars_fragment.replace(LAMBERT, SOFT_LAMBERT);
    shader.fragmentShader = shader.fragmentShader
      .replace("#include <uv_pars_fragment>", PARAMETERS)
      .replace("#include <map_fragment>", COLOURS)
      .replace("#include <color_fragment>", PAINT)
      .replace("#include <roughnessmap_fragment>", ROUGHNESS)
      .replace("#include <normal_fragment_maps>", DISPLACEMENT)
      .replace("#include <lights_physical_pars_fragment>", lights)
      .replace("#include <tonemapping_fragment>", SHOULDER)
      .replace("#include <dithering_fragment>",
        "#include <dithering_fragment>\nif (viewMode == 2) gl_FragColor = vec4(0.5 * normal + 0.5, 1.0);");
  }

  // Pictures: texture, normal, smooth, wrinkles, those that there are.
  dress({ texture, normal, smooth, wrinkles }) {
    this.material.map = texture ?? this.white;
    this.material.normalMap = normal ?? this.flat;
    this.uniforms.smoothMap.value = smooth ?? this.material.map;
    this.uniforms.wrinkleMap.value = wrinkles ?? this.level;
    this.hasWrinkles = Boolean(wrinkles);
  }

  setMode(mode) {
    this.uniforms.viewMode.value = MODES.indexOf(mode);
  }

  setStrength(strength) {
    this.uniforms.detailStrength.value = strength;
  }

  // At the fitted expression the wrinkles are its own; elsewhere those of each movement, on each side of the face.
  wrinkle(expression, fitted) {
    const { wrinkleOwn, wrinkleLeft, wrinkleRight } = this.uniforms;
    let distance = 0, size = 0;
    for (const name of this.model.names) {
      const own = fitted[name] ?? 0;
      distance += ((expression[name] ?? 0) - own) ** 2;
      size += own ** 2;
    }
    const share = this.hasWrinkles && size > 1e-6 ? Math.max(0, 1 - distance / size) : 0;
    wrinkleOwn.value = share;
    this.model.wrinkles.forEach((wrinkle, k) => {
      for (const [side, other, amounts] of [["Left", "Right", wrinkleLeft], ["Right", "Left", wrinkleRight]]) {
        const names = Object.keys(wrinkle).filter((name) => !name.endsWith(other));
        const sum = names.reduce((total, name) => total + (expression[name] ?? 0) / wrinkle[name], 0);
        amounts.value[k] = this.hasWrinkles && names.length ? ((1 - share) * sum) / names.length : 0;
      }
    });
  }
}
